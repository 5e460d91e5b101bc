# One image for every role: `docker build -t wattle .`, then `docker run wattle runtime --connect ...`.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY wattle wattle
COPY agents agents
RUN python3 -m venv /opt/wattle && /opt/wattle/bin/pip install --no-cache-dir .

FROM ${BASE}
COPY --from=build /opt/wattle /opt/wattle
RUN useradd --uid 1000 --create-home wattle && mkdir /data && chown wattle /data
ENV PATH=/opt/wattle/bin:$PATH WATTLE_DATA=/data
USER wattle
VOLUME /data
ENTRYPOINT ["wattle"]
