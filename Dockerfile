# The server alone: PostgreSQL and Redis are named by SCOREBOARD_POSTGRES__URL and SCOREBOARD_REDIS__URL.
#   docker build -t scoreboard .
#   docker run --rm -p 8000:8000 --env-file scoreboard.env scoreboard
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/scoreboard
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The dependencies first: this layer stays while only our own code changes. Each file is compared with its pinned hash.
COPY config/requirements ./config/requirements
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r config/requirements/build.txt \
    && /opt/scoreboard/bin/pip install --require-hashes -r config/requirements/server.txt
COPY LICENSE pyproject.toml ./
COPY config ./config
COPY scoreboard ./scoreboard
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/scoreboard/bin/pip install --no-deps /dist/*.whl

FROM python:${PYTHON}-slim
RUN groupadd --system --gid 10001 scoreboard \
    && useradd --system --uid 10001 --gid scoreboard --home-dir /nonexistent --no-create-home \
        --shell /usr/sbin/nologin scoreboard
COPY --from=build /opt/scoreboard /opt/scoreboard
ENV PATH=/opt/scoreboard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SCOREBOARD_ENVIRONMENT=production \
    SCOREBOARD_SERVER__HOST=0.0.0.0 \
    SCOREBOARD_SERVER__PORT=8000
USER scoreboard
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD python -c "import os, urllib.request as r; port = os.environ['SCOREBOARD_SERVER__PORT']; \
r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + port + '/readyz', timeout=2)"
ENTRYPOINT ["scoreboard"]
CMD ["serve"]
