#!/bin/sh
# `mmal` as the service of mmal.service runs it: the same settings, folder and user, so that no file becomes root's.
#   install -m 755 mmal.sh /usr/local/bin/mmal      # then, as root: mmal doctor
# It works in /opt/mmal: name files by their whole path. Values of mmal.env with blanks or signs: in single quotes.
set -e
set -a
MMAL_DATA_DIR=/var/lib/mmal
XDG_CACHE_HOME=/var/cache/mmal
HF_HOME=/var/cache/mmal/huggingface
. /etc/mmal/mmal.env
set +a
cd /opt/mmal
# Where cron does not look by itself.
PATH=$PATH:/usr/sbin:/sbin
exec runuser -u mmal -- .venv/bin/mmal "$@"
