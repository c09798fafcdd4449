#!/usr/bin/env bash
# Builds the images with the first engine that answers: docker, podman or buildah. `make images` calls it.
#
#   ENGINE=podman            this engine and no other
#   TARGETS="slim mlflow"    only these of: slim cuda mlflow
#   REGISTRY=host/path       push them there, and print the lines for the overlay's images:
#   RELEASE=1                refuse code that is not committed
#   BASE=… TORCH_INDEX=…     see components/Dockerfile
#
# Exit codes: 0 built, 1 a build failed, 2 wrong input, 3 no engine answers.
set -euo pipefail
cd "$(dirname "$0")/.."

stop() { echo "mtrec: $2" >&2; exit "$1"; }

# A client without a daemon is no engine: ask, do not look for the file.
answers() {
    case "$1" in
    buildah) buildah version ;;
    *) "$1" info ;;
    esac >/dev/null 2>&1
}

engine=${ENGINE:-}
if [[ -z $engine ]]; then
    for candidate in docker podman buildah; do
        if answers "$candidate"; then engine=$candidate && break; fi
    done
    [[ -n $engine ]] || stop 3 'none of docker, podman and buildah answers; install one, or start its daemon'
else
    [[ $engine =~ ^(docker|podman|buildah)$ ]] || stop 2 "ENGINE=$engine: choose docker, podman or buildah"
    answers "$engine" || stop 3 "$engine does not answer; is it installed, and its daemon running?"
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
mlflow=$(sed -n 's/.*"mlflow\[auth\]==\([^"]*\)".*/\1/p' mlflow/Dockerfile)
revision=$(git rev-parse HEAD) || stop 2 'the images carry the commit they are made from: build in a git checkout'
if [[ -n $(git status --porcelain -- src components pipelines scenarios pyproject.toml constraints.txt mlflow) ]]; then
    [[ -z ${RELEASE:-} ]] || stop 2 'RELEASE=1, and not everything is committed'
    revision+=-dirty
fi

pinned=()
for target in ${TARGETS:-slim cuda mlflow}; do
    case "$target" in
    slim) name=mtrec/python:$version file=components/Dockerfile ;;
    cuda) name=mtrec/python-cuda:$version file=components/Dockerfile ;;
    mlflow) name=mtrec/mlflow:$mlflow file=mlflow/Dockerfile ;;
    *) stop 2 "TARGETS: $target is none of slim, cuda, mlflow" ;;
    esac
    arguments=(build -f "$file" -t "$name" --label "org.opencontainers.image.revision=$revision")
    [[ -z ${BASE:-} ]] || arguments+=(--build-arg "BASE=$BASE")
    if [[ $target != mlflow ]]; then
        arguments+=(--target "$target" --build-arg "REVISION=$revision" --build-arg "VERSION=$version")
    fi
    if [[ $target == slim && -n ${TORCH_INDEX+given} ]]; then
        arguments+=(--build-arg "TORCH_INDEX=$TORCH_INDEX")
    fi
    echo "Building $name of $revision with $engine"
    "$engine" "${arguments[@]}" . || stop 1 "$name was not built, see above"

    if [[ -n ${REGISTRY:-} ]]; then
        pushed=$REGISTRY/$name
        "$engine" tag "$name" "$pushed"
        # Only the registry knows the digest under which it can be pulled.
        if [[ $engine == docker ]]; then
            docker push "$pushed" || stop 1 "$pushed was not pushed, see above"
            digest=$(docker inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$pushed" |
                sed -n "s|^${pushed%:*}@||p" | head -n 1)
        else
            told=$(mktemp)
            "$engine" push --digestfile "$told" "$pushed" || stop 1 "$pushed was not pushed, see above"
            digest=$(cat "$told") && rm -f "$told"
        fi
        [[ $digest == sha256:* ]] || stop 1 "$pushed: $engine told no digest"
        pinned+=("  - {name: registry.invalid/${name%:*}, newName: ${pushed%:*}, digest: \"$digest\"}")
    fi
done

if ((${#pinned[@]})); then
    echo 'For the overlay of your cluster (k8s/README.md):'
    printf 'images:\n'
    printf '%s\n' "${pinned[@]}"
fi
