# One image for the web process and the worker; docker-compose.yml runs one container of each.
FROM python:3.11-slim
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY backend backend
COPY scripts scripts
COPY tasks_templates tasks_templates
# From the folder and not as a copy: the templates lie beside the package.
RUN pip install --no-cache-dir --no-deps -e . && useradd --create-home mmal && mkdir /data && chown mmal /data
USER mmal
ENV MMAL_HOST=0.0.0.0 MMAL_DATA_DIR=/data PORT=9090
VOLUME /data
EXPOSE 9090
CMD ["mmal", "serve"]
