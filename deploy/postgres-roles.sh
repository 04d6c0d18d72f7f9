#!/bin/sh
# Runs once, when Postgres makes its data folder. Two roles: one owns the tables and runs migrations; the service's own can neither
# change a table nor switch a trigger off. `efface migrate` gives it what it needs (EFFACE_DATABASE_SERVICE_ROLE).
set -eu

owner_password="$(cat "${OWNER_PASSWORD_FILE:?}")"

psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:?}" --dbname postgres \
  -v owner_password="$owner_password" -v service_password="${SERVICE_PASSWORD:?}" <<'SQL'
CREATE ROLE efface_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
CREATE ROLE efface LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'service_password';
CREATE DATABASE efface OWNER efface_owner;
REVOKE ALL ON DATABASE efface FROM PUBLIC;
GRANT CONNECT ON DATABASE efface TO efface;
SQL
