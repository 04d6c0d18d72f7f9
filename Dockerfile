# syntax=docker/dockerfile:1.7
# Two images from one file: `api` (no torch; also runs relay, migrations and keys) and `worker` (torch with CUDA).
#   docker build --target api --tag efface-api .
#   docker build --target worker --tag efface-worker .

FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 efface
WORKDIR /app

FROM base AS build-api
RUN python -m venv /venv
# Dependencies first: this layer is rebuilt only when they change.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY shared/__init__.py shared/__init__.py
RUN /venv/bin/pip install --constraint constraints.txt .
COPY api api
COPY services services
COPY shared shared
COPY worker/__init__.py worker/cli.py worker/
COPY migrations migrations
RUN /venv/bin/pip install --no-deps --force-reinstall .

FROM build-api AS build-worker
RUN /venv/bin/pip install --constraint constraints.txt ".[worker]"
COPY worker worker
RUN /venv/bin/pip install --no-deps --force-reinstall .

FROM base AS api
COPY --from=build-api /venv /venv
ENV PATH=/venv/bin:$PATH EFFACE_HOST=0.0.0.0 EFFACE_PORT=8080 TMPDIR=/tmp
# Volumes that are mounted here take over owner and rights.
RUN install --directory --owner efface --mode 700 /signing /audit /keys /uploads
USER efface
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
CMD ["efface", "api"]

FROM base AS worker
COPY --from=build-worker /venv /venv
# The CUDA libraries come with the torch wheels; the driver comes from the host through the NVIDIA container runtime.
ENV PATH=/venv/bin:$PATH NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility EFFACE_RUNTIME_DIR=/tmp/efface
RUN install --directory --owner efface --mode 700 /scratch /home/efface/.cache
USER efface
# A worker is alive while its standby child's socket is there; whether jobs move is the lease's business.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import pathlib, sys; sys.exit(not any(pathlib.Path('/tmp/efface').glob('*.sock')))"]
CMD ["efface", "worker"]
