# One image for every agent and for the command line. `make image` puts the wheels it is made of into build/wheels, once, and builds it
# of them without a network: `docker run --rm wattle --version`.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN python3 -m venv /opt/wattle
COPY build/wheels /wheels
RUN /opt/wattle/bin/pip install --no-cache-dir --no-index /wheels/*.whl
COPY build/wattle /wheels
RUN /opt/wattle/bin/pip install --no-cache-dir --no-index /wheels/wattle-*.whl \
 && /opt/wattle/bin/pip uninstall --yes --quiet setuptools pip

FROM ${BASE}
# Debian packages to add, such as bubblewrap (tasks with a sandbox of their own need it); these do come over the network.
ARG PACKAGES=""
RUN test -z "$PACKAGES" || { apt-get update && apt-get install --yes --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; }
# A new volume takes its owner from the folder that it is mounted over: /data at agents, /authority and /volumes/* at init
# (docker-compose.yml).
RUN useradd --uid 1000 --no-create-home --home-dir /data wattle \
 && install -d -o wattle -g wattle -m 0700 /data /authority \
 && for service in router1 router2 router3 runtime1 runtime2 runtime3 coordinator1 coordinator2 gateway1 gateway2 client; do \
      install -d -o wattle -g wattle -m 0700 "/volumes/$service"; done
COPY docker/agent docker/health docker/init /usr/local/lib/wattle/
COPY --from=build /opt/wattle /opt/wattle
ENV PATH=/opt/wattle/bin:$PATH WATTLE_DATA=/data
USER wattle
WORKDIR /data
VOLUME /data
ENTRYPOINT ["wattle"]
