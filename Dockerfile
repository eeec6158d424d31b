# Two images from one file: `docker build --target job .` and `docker build --target serve .`
# (`make image` adds version and revision as labels, which are no layer).
# `docker stop` kills after 10 s, which an image cannot change: run with --stop-timeout 45 for the server (30 s for running
# requests, 5 s until they are cut off) and 180 for the job (the longest step and a checkpoint), as the Makefile does.
# torch's wheels bring CUDA's libraries, so the smallest CUDA base is enough; it brings the runtime's settings.
ARG BASE_IMAGE=nvidia/cuda:13.0.3-base-ubuntu24.04

FROM ${BASE_IMAGE} AS python
# the distribution updates its Python for security; older packages leave the archive, so versions cannot be pinned
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
# only /tmp, /cache (HF_HOME) and the run folder are written: works with a read-only root and for any user
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp kickoff \
    && install -d -o kickoff -g kickoff /cache /work/runs
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp USER=kickoff HF_HOME=/cache MPLCONFIGDIR=/tmp/matplotlib \
    TRITON_CACHE_DIR=/tmp/triton TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
# paths in a config are relative to this folder, as on a laptop they are to the folder in which the run starts
WORKDIR /work

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
WORKDIR /build
COPY pyproject.toml constraints.txt ./
# what the extras depend on, without our own code: it comes later, so that a change of it reinstalls nothing
RUN python -c "import tomllib; \
extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
[open(f'{name}.txt', 'w').write('\n'.join(extras[name])) for name in ('job', 'serve')]"

FROM build AS job-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -q -c constraints.txt -r job.txt && pip uninstall -qy pip

FROM build AS serve-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -q -c constraints.txt -r serve.txt && pip uninstall -qy pip

FROM python AS job
COPY --from=job-packages /opt/venv /opt/venv
COPY job /app/job
LABEL org.opencontainers.image.title="kickoff-job" \
    org.opencontainers.image.description="Fine-tunes, measures and publishes a small language model"
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "job"]
CMD ["run", "/config/config.yaml"]

FROM python AS serve
COPY --from=serve-packages /opt/venv /opt/venv
COPY serve /app/serve
ENV KICKOFF_HOST=0.0.0.0
LABEL org.opencontainers.image.title="kickoff-serve" \
    org.opencontainers.image.description="Answers over HTTP from a published model"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "serve"]
