# docker build --tag fine-tuning-warehouse .
# docker run --env OPENAI_API_KEY --volume fine-tuning:/data fine-tuning-warehouse
# An exact version, so that a build is repeatable. A digest pins the very bytes (--build-arg PYTHON=VERSION@sha256:DIGEST):
# it differs between registries' mirrors and architectures, so take the one of your own registry.
ARG PYTHON=3.13.9-slim-bookworm

FROM python:${PYTHON} AS build
# Other warehouses, by dlt's names of them: --build-arg DESTINATIONS=postgres,snowflake
ARG DESTINATIONS=duckdb
# --build-arg EXTRAS=[lake,s3]
ARG EXTRAS=
COPY . /src
WORKDIR /src
# uv takes no release that is newer than pyproject.toml says.
RUN pip install --no-cache-dir uv==0.13.9 \
    && python -m venv /opt/ftw \
    && uv pip install --no-cache --python /opt/ftw/bin/python "/src${EXTRAS}" "dlt[${DESTINATIONS}]"

FROM python:${PYTHON}
COPY --from=build /opt/ftw /opt/ftw
RUN install --directory --owner=65534 --group=65534 /data
ENV PATH=/opt/ftw/bin:$PATH HOME=/tmp
# nobody, by number: what starts containers may ask for that
USER 65534:65534
WORKDIR /data
# Well, as long as a sync succeeded within three intervals; a first sync of a long history takes its time.
HEALTHCHECK --interval=1m --timeout=10s --start-period=1h CMD ["ftw", "health", "/tmp/health.json", "--any"]
ENTRYPOINT ["ftw"]
CMD ["sync", "--every", "15m", "--health-file", "/tmp/health.json"]
