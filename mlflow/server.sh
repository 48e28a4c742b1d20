#!/bin/sh
# The tracking server of a group: runs and users in PostgreSQL, artifacts in a folder that the server alone touches.
#
# PGHOST, PGPORT, PGUSER, PGPASSWORD   the database's, as libpq reads them; it holds two databases, mlflow and auth
# MLFLOW_AUTH_ADMIN_PASSWORD           of the user admin, at the first start
# MLFLOW_FLASK_SERVER_SECRET_KEY       any long random text, the same at every start
# ARTIFACTS, LISTEN, PORT              a folder; the address and port to listen on (127.0.0.1, 5000)
#
# No password stands in an argument or in an address.
set -eu
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export MLFLOW_BACKEND_STORE_URI=postgresql+psycopg2:///mlflow
export MLFLOW_AUTH_CONFIG_PATH="$(cd "$(dirname "$0")" && pwd)/auth.ini"
exec python3 -m mlflow server --app-name basic-auth --host "${LISTEN:-127.0.0.1}" --port "${PORT:-5000}" --workers 2 \
  --serve-artifacts --artifacts-destination "${ARTIFACTS:?name a folder}"
