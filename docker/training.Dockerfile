# The training job. From the root of the repository:
# docker build --file docker/training.Dockerfile --tag photo-restoration-training .
# Up to the mark below it is the service's file, word for word, so that the two images share those layers.
# The base needs Python 3.11 or newer with venv, and useradd: python:*-slim and Debian have them. To build on exactly the
# same base again, name its digest: --build-arg BASE_IMAGE=python@sha256:...
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

ENV HOME=/tmp \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --uid 10001 --user-group --home-dir /tmp --no-create-home --shell /usr/sbin/nologin restoration \
    && install --directory --owner 10001 --group 10001 /var/lib/restoration/model_store /var/lib/restoration/runs

# Largest and most seldom changed first: a change to the code, or to another dependency, leaves this layer as it is.
# With CUDA: --build-arg TORCH_INDEX=https://pypi.org/simple. What only compiling against torch needs, and its own tests,
# are removed: 0.2 GB.
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}" \
    && cd /opt/venv/lib/python3*/site-packages/torch \
    && rm -rf include test bin/test_* bin/protoc*

WORKDIR /app
COPY docker/constraints.txt docker/list_requirements.py pyproject.toml ./
RUN pip install --no-cache-dir --constraint constraints.txt $(python list_requirements.py)

# --- what only training needs ---
# Extras of pyproject.toml, such as --build-arg EXTRAS=s3: publishing into a bucket.
ARG EXTRAS=""
RUN pip install --no-cache-dir --constraint constraints.txt $(python list_requirements.py "training,${EXTRAS}")

COPY model_store model_store
COPY restoration restoration
COPY training training

STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "training"]
CMD ["run", "/photos", "--run", "/var/lib/restoration/runs/latest", "--model-store", "/var/lib/restoration/model_store"]

# Last, because they change with every build. The file is for buildah, whose cache (1.28) looks at the arguments of RUN only,
# and would give the next image the labels of the one before.
ARG VERSION=unknown
ARG REVISION=unknown
RUN echo "${VERSION} ${REVISION}" > /app/REVISION
USER 10001:10001
# What a release's card says of the code that made it; there is no git in here to ask.
ENV CODE_REVISION=${REVISION}
LABEL org.opencontainers.image.title="Photo restoration: the training job" \
      org.opencontainers.image.description="Trains a generator on a folder of photographs and publishes it for the service to load" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
