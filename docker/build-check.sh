#!/usr/bin/env bash
# Builds both images for real, without Docker, and runs them from what was built: as uid 10001, on a read-only root. Needs
# root, buildah, and debootstrap (or BASE_IMAGE); on Debian: apt-get install buildah debootstrap.
#
#   BASE_IMAGE    an image to build on; without it, one of Debian bookworm is made by debootstrap
#   TORCH_INDEX   where torch comes from, as in the Dockerfiles; needed where PyTorch's own index is out of reach
#   EXTRAS        for the service, such as s3,tracing
#   BUILD_FLAGS   more for `buildah build`, such as "--volume /etc/pip.conf:/etc/pip.conf:ro" behind a mirror
#
# Where Prometheus is installed, the last step also asks it what the dashboard asks. The images stay, for a second run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SERVICE=localhost/photo-restoration
TRAINING=localhost/photo-restoration-training
KEPT=/var/lib/restoration
WORK=$(mktemp -d)
PIDS=()

say() { echo "== $* (after $SECONDS s)"; }
fail() { echo "build check failed: $*" >&2; exit 1; }

clean_up() {
    if [ -n "${WATCHER:-}" ]; then kill "$WATCHER" 2>/dev/null && wait "$WATCHER" || true; fi
    for pid in "${PIDS[@]}"; do kill $(pgrep --parent "$pid") 2>/dev/null && wait "$pid" || true; done
    for container in ${CONTAINERS:-}; do buildah rm "$container" >/dev/null || true; done
    rm -rf "$WORK"
}
trap clean_up EXIT

make_base() {
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$WORK/base" >"$WORK/base.log"
    rm -rf "$WORK"/base/var/cache/apt/* "$WORK"/base/var/lib/apt/lists/* # as python:*-slim has it
    tar --directory "$WORK/base" --create --file "$WORK/base.tar" .
    printf 'FROM scratch\nADD base.tar /\n' >"$WORK/Dockerfile"
    buildah build --isolation chroot --quiet --tag localhost/restoration-base --file "$WORK/Dockerfile" "$WORK" >/dev/null
    rm -rf "$WORK/base" "$WORK/base.tar"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

build() { # build DOCKERFILE TAG CONTEXT [REVISION]: its log goes to standard output
    # shellcheck disable=SC2086  # BUILD_FLAGS are several words
    buildah build --isolation chroot --layers --format docker ${BUILD_FLAGS:-} --build-arg "BASE_IMAGE=$BASE_IMAGE" \
        ${TORCH_INDEX:+--build-arg "TORCH_INDEX=$TORCH_INDEX"} --build-arg "REVISION=${4:-${REVISION:-unknown}}" \
        --build-arg "EXTRAS=${EXTRAS:-}" \
        --file "$3/docker/$1.Dockerfile" --tag "$2" "$3"
}

field() { buildah inspect --type image --format "{{$2}}" "$1"; } # field IMAGE TEMPLATE

# in_image IMAGE COMMAND...: in its root file system, mounted read-only, with its environment and user, and with /tmp and
# the kept folders as Compose mounts them. It shares this machine's network.
in_image() {
    local image=$1 root
    shift
    root=$(buildah mount "$(container_of "$image")")
    mapfile -t environment < <(field "$image" 'range .OCIv1.Config.Env}}{{println .}}{{end' | sed '/^$/d')
    unshare --mount --propagation private -- bash -euc '
        root=$1 kept=$2 photos=$3; shift 3
        mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
        mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$kept" "$root/var/lib/restoration" && mount -o ro --bind "$photos" "$root/mnt"
        exec chroot --userspec 10001:10001 "$root" env --ignore-environment --chdir /app "$@"
    ' - "$root" "$WORK/kept" "$WORK/photos" "${environment[@]}" "${EXTRA_ENVIRONMENT[@]}" "$@"
}

container_of() { [ "$1" = "$SERVICE" ] && echo "$SERVICE_CONTAINER" || echo "$TRAINING_CONTAINER"; }

if [ -z "${BASE_IMAGE:-}" ]; then
    say "a base image by debootstrap"
    make_base
    BASE_IMAGE=localhost/restoration-base
fi

say "both images"
build service $SERVICE . >"$WORK/service.log" 2>&1 || { cat "$WORK/service.log"; fail "the service's image"; }
build training $TRAINING . >"$WORK/training.log" 2>&1 || { cat "$WORK/training.log"; fail "the training job's image"; }
buildah images --format '{{.Name}}: {{.Size}}' | grep "$SERVICE"
echo "layers of the training image that come from the service's: $(grep -c 'Using cache' "$WORK/training.log")"

say "a change to the code installs nothing anew"
mkdir "$WORK/changed"
git ls-files -z | xargs -0 cp --parents --target-directory "$WORK/changed"
echo "# changed" >>"$WORK/changed/service/app.py"
build service "$SERVICE:changed" "$WORK/changed" >"$WORK/changed.log" 2>&1 || { cat "$WORK/changed.log"; fail "the rebuild"; }
grep -q "pip install" "$WORK/changed.log" || fail "the rebuild's log does not show its steps"
grep -q "Collecting" "$WORK/changed.log" && fail "packages were installed anew"
buildah rmi "$SERVICE:changed" >/dev/null

say "another revision is another image, though nothing else changed"
for revision in one two; do
    build training "$TRAINING:$revision" . $revision >"$WORK/$revision.log" 2>&1 || { cat "$WORK/$revision.log"; fail "revision $revision"; }
    field "$TRAINING:$revision" 'index .OCIv1.Config.Labels "org.opencontainers.image.revision"' | grep -qx $revision \
        || fail "the image of revision $revision has the labels of another"
    field "$TRAINING:$revision" .OCIv1.Config.Env | grep -q "CODE_REVISION=$revision" || fail "releases would name another revision"
    buildah rmi "$TRAINING:$revision" >/dev/null
done

say "what the images say of themselves"
for image in $SERVICE $TRAINING; do
    [ "$(field $image .OCIv1.Config.User)" = 10001:10001 ] || fail "$image runs as $(field $image .OCIv1.Config.User)"
    [ -n "$(field $image 'index .OCIv1.Config.Labels "org.opencontainers.image.title"')" ] || fail "$image has no title"
done
echo "health check: $(field $SERVICE .Docker.Config.Healthcheck.Test), entry point: $(field $SERVICE .OCIv1.Config.Entrypoint)"

SERVICE_CONTAINER=$(buildah from $SERVICE)
TRAINING_CONTAINER=$(buildah from $TRAINING)
CONTAINERS="$SERVICE_CONTAINER $TRAINING_CONTAINER"
EXTRA_ENVIRONMENT=()
for volume in $(grep --only-matching --perl-regexp -- '--volume \K\S+' <<<"${BUILD_FLAGS:-}"); do
    IFS=: read -r source target _ <<<"$volume"
    diff --recursive --brief "$source" "$(buildah mount "$SERVICE_CONTAINER")$target" >/dev/null 2>&1 \
        && fail "$target was lent to the build and stayed in the image"
done
mkdir --mode 755 "$WORK/photos"
cp --archive "$(buildah mount "$SERVICE_CONTAINER")$KEPT" "$WORK/kept" # a new volume: content and owner are the image's
chmod 755 "$WORK"

say "the service, from its image"
in_image $SERVICE python -m service 2>"$WORK/refused.log" && fail "it started on 0.0.0.0 without keys"
cat "$WORK/refused.log"
in_image $SERVICE sh -c 'echo x > /app/x' 2>/dev/null && fail "the root file system can be written"
in_image $SERVICE python -m restoration.seeding $KEPT/model_store
PORT=$(free_port)
URL=http://127.0.0.1:$PORT
EXTRA_ENVIRONMENT=(RESTORE_HOST=127.0.0.1 "RESTORE_PORT=$PORT" RESTORE_MODEL_STORE=$KEPT/model_store)
in_image $SERVICE python -m service >"$WORK/run.log" 2>&1 &
PIDS+=($!)
for _ in $(seq 240); do curl --silent --fail --output /dev/null "$URL/readyz" && break || sleep 0.5; done
curl --silent --show-error --fail "$URL/readyz" || { cat "$WORK/run.log"; fail "it does not become ready"; }
echo
in_image $SERVICE python /app/healthcheck.py || fail "its health check is red"
newest=$(ls -d model_store/[0-9]* | tail -1)
curl --silent --show-error --fail --dump-header "$WORK/head" --form "image=@$newest/golden/damaged.png" "$URL/restore?sensitivity=1" \
    --output "$WORK/restored.png" || { tail -40 "$WORK/run.log"; fail "the photo is not restored"; }
grep --ignore-case --extended-regexp '^(HTTP|content-type|x-model-version|x-damage-ratio)' "$WORK/head"
cmp --silent "$newest/golden/damaged.png" "$WORK/restored.png" && fail "the photo came back as it was"

say "the full loop: the training image trains briefly, publishes, the service takes over"
EXTRA_ENVIRONMENT+=(OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}")
chown 10001:10001 "$WORK/photos"
in_image $TRAINING python - >"$WORK/photos.tar" <<'PYTHON'
import io, sys, tarfile
from PIL import Image
from training.samples import NAMES, crop_sample

with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as photos:
    for name in NAMES:
        png = io.BytesIO()
        Image.fromarray(crop_sample(name, 256)).save(png, "PNG")
        entry = tarfile.TarInfo(f"{name}.png")
        entry.size = png.tell()
        png.seek(0)
        photos.addfile(entry, png)
PYTHON
tar --directory "$WORK/photos" --extract --file "$WORK/photos.tar"
train_briefly() {
    # shellcheck disable=SC2046  # an entry point of several words
    in_image $TRAINING $(field $TRAINING 'range .OCIv1.Config.Entrypoint}}{{println .}}{{end') run /mnt \
        --run $KEPT/runs/check --model-store $KEPT/model_store --recipe fine-tune \
        --start-from "$KEPT/model_store/$(basename "$newest")" --steps-factor 0.0002 --num-cases 1 \
        --force "a check of the images; a few steps make nothing better" >"$WORK/train.log" 2>&1 \
        || { tail -20 "$WORK/train.log"; return 1; }
}
export -f in_image train_briefly field container_of
export SERVICE TRAINING SERVICE_CONTAINER TRAINING_CONTAINER WORK KEPT newest
environment_line=$(declare -p EXTRA_ENVIRONMENT)
ASKING=()
if command -v prometheus >/dev/null; then
    PROMETHEUS=127.0.0.1:$(free_port)
    sed "s/service:8000/127.0.0.1:$PORT/" docker/prometheus/prometheus.yml >"$WORK/prometheus.yml"
    cp docker/prometheus/rules.yml "$WORK"
    prometheus --config.file="$WORK/prometheus.yml" --storage.tsdb.path="$WORK/tsdb" \
        --web.listen-address="$PROMETHEUS" --log.level=error &
    WATCHER=$!
    ASKING=(--prometheus "http://$PROMETHEUS")
fi
python3 docker/full_loop.py "$URL" "${ASKING[@]}" -- bash -euc "$environment_line; train_briefly"
grep "code revision" "$WORK"/kept/model_store/*/README.md | tail -1

say "a graceful stop"
kill -TERM "$(pgrep --parent "${PIDS[0]}")"
wait "${PIDS[0]}" && echo "exit status 0" || fail "it ended with exit status $?"
PIDS=()
say "all well"
