# Prepares, trains, evaluates and serves:
#
#   docker build --tag recall .
#   docker run --rm --volume "$PWD:/work" recall run experiment.yaml --out runs/mine
#   docker run --rm --volume "$PWD:/work" --publish 8080:8080 recall serve --run runs/mine --host 0.0.0.0
#
# The container's user has the id 10001 (--user "$(id -u)" makes files yours). Versions are the ones of .ci/constraints.
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3 \
    MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /source
COPY .ci/constraints/3.12.txt constraints.txt
COPY setup.cfg pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff ./
COPY recall recall
COPY pipelines pipelines
RUN pip install --constraint constraints.txt '.[train,serve]' && rm -rf build *.egg-info

RUN useradd --uid 10001 --create-home recall
USER recall
WORKDIR /work
ENTRYPOINT ["recall"]
CMD ["--help"]
