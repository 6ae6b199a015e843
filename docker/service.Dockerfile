# The service. From the root of the repository:
# docker build --file docker/service.Dockerfile --tag photo-restoration .
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

# Extras of pyproject.toml, such as --build-arg EXTRAS=s3,tracing: a model store in a bucket, spans for OpenTelemetry.
ARG EXTRAS=""
RUN test -z "${EXTRAS}" || pip install --no-cache-dir --constraint constraints.txt $(python list_requirements.py "${EXTRAS}")

COPY model_store model_store
COPY restoration restoration
COPY service service
COPY docker/healthcheck.py healthcheck.py

# Without API keys, or RESTORE_ALLOW_ANONYMOUS=true, the service refuses to start on this address.
ENV RESTORE_HOST=0.0.0.0 \
    RESTORE_PORT=8000 \
    RESTORE_LOG_FORMAT=json
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/app/healthcheck.py"]
ENTRYPOINT ["python", "-m", "service"]

# Last, because they change with every build. The file is for buildah, whose cache (1.28) looks at the arguments of RUN only,
# and would give the next image the labels of the one before.
ARG VERSION=unknown
ARG REVISION=unknown
RUN echo "${VERSION} ${REVISION}" > /app/REVISION
USER 10001:10001
LABEL org.opencontainers.image.title="Photo restoration: the service" \
      org.opencontainers.image.description="Takes scanned photographs over HTTP, gives them back without scratches, dust and stains" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
