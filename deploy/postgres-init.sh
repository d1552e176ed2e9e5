#!/bin/sh
# Run once by the PostgreSQL image, on an empty volume: a database and a user for Label Studio, another for the backend.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set studio="$LABEL_STUDIO_DB_PASSWORD" --set backend="$BACKEND_DB_PASSWORD" <<'SQL'
CREATE USER label_studio PASSWORD :'studio';
CREATE DATABASE label_studio OWNER label_studio;
REVOKE ALL ON DATABASE label_studio FROM PUBLIC;
CREATE USER backend PASSWORD :'backend';
CREATE DATABASE backend OWNER backend;
REVOKE ALL ON DATABASE backend FROM PUBLIC;
SQL
