# syntax=docker/dockerfile:1
#
# Four images:
#   producer       submits, watches, exports, migrates; no torch
#   worker-cpu     one loaded model on the CPU
#   worker-gpu     the same with CUDA, for the NVIDIA container runtime
#   worker-hosted  a model behind an OpenAI-compatible endpoint; no torch
#
#   docker build --target worker-gpu -t promptmill-worker-gpu .

FROM python:3.12-slim AS base
ENV PATH=/opt/promptmill/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/cache
# /cache holds downloaded models; a named volume mounted there takes its owner over.
RUN useradd --uid 10001 --create-home promptmill \
 && install --directory --owner=promptmill --group=promptmill /cache /data
WORKDIR /data
ENTRYPOINT ["promptmill"]


# Dependencies first, against empty packages: they change less often than the code does.
FROM base AS build
WORKDIR /src
RUN python -m venv /opt/promptmill \
 && mkdir db producer promptmill worker \
 && touch db/__init__.py producer/__init__.py promptmill/__init__.py worker/__init__.py
COPY pyproject.toml constraints.txt README.md LICENSE ./

FROM build AS wheel
ARG PIP_FLAGS=""
COPY db db
COPY producer producer
COPY promptmill promptmill
COPY worker worker
RUN pip wheel $PIP_FLAGS --no-deps --wheel-dir /wheel .

FROM build AS build-producer
ARG PIP_FLAGS=""
RUN --mount=type=cache,target=/root/.cache/pip pip install $PIP_FLAGS -c constraints.txt .
RUN --mount=from=wheel,source=/wheel,target=/wheel pip install --no-deps --force-reinstall /wheel/*

# On Linux pip's default index has torch with CUDA. It runs on a CPU too; PyTorch's own index of
# CPU wheels (see pytorch.org, "Install") makes this image some gigabytes smaller:
#   docker build --target worker-cpu --build-arg CPU_PIP_FLAGS="--extra-index-url …" .
FROM build AS build-worker-cpu
ARG PIP_FLAGS=""
ARG CPU_PIP_FLAGS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install $PIP_FLAGS $CPU_PIP_FLAGS -c constraints.txt '.[worker,gguf,quantized]'
RUN --mount=from=wheel,source=/wheel,target=/wheel pip install --no-deps --force-reinstall /wheel/*

FROM build AS build-worker-gpu
ARG PIP_FLAGS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install $PIP_FLAGS -c constraints.txt '.[worker,gguf,quantized]'
RUN --mount=from=wheel,source=/wheel,target=/wheel pip install --no-deps --force-reinstall /wheel/*

FROM build AS build-worker-hosted
ARG PIP_FLAGS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install $PIP_FLAGS -c constraints.txt '.[openai]'
RUN --mount=from=wheel,source=/wheel,target=/wheel pip install --no-deps --force-reinstall /wheel/*


FROM base AS producer
COPY --from=build-producer /opt/promptmill /opt/promptmill
USER promptmill
CMD ["--help"]

FROM base AS worker-cpu
COPY --from=build-worker-cpu /opt/promptmill /opt/promptmill
USER promptmill
CMD ["worker", "--device", "cpu"]

FROM base AS worker-gpu
COPY --from=build-worker-gpu /opt/promptmill /opt/promptmill
USER promptmill
CMD ["worker", "--gpus", "all"]

FROM base AS worker-hosted
COPY --from=build-worker-hosted /opt/promptmill /opt/promptmill
USER promptmill
CMD ["worker", "--engine", "openai"]
