# One image for the web process and the worker; docker-compose.yml runs one container of each.
FROM python:3.11.13-slim-bookworm

# An index with CPU builds of torch makes the image gigabytes smaller: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /app
COPY requirements.txt constraints.txt ./
# The image's own pip is as old as its Python; those before this one have known vulnerabilities.
RUN pip install --upgrade 'pip>=26.0' && pip install -c constraints.txt -r requirements.txt

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY backend backend
COPY scripts scripts
COPY tasks_templates tasks_templates
# From the folder and not as a copy: the templates lie beside the package.
RUN pip install -c constraints.txt -e '.[team]' \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin mmal \
    && install --directory --owner=mmal --group=mmal /data

USER 10001
# Libraries that want to write beside their settings find a folder that is writable and goes with the container; weights
# of encoders that are downloaded stay.
ENV HOME=/tmp XDG_CACHE_HOME=/data/cache HF_HOME=/data/cache/huggingface MMAL_HOST=0.0.0.0 MMAL_DATA_DIR=/data PORT=9090
VOLUME /data
EXPOSE 9090
CMD ["mmal", "serve"]
