#!/bin/sh
# What stands between many a service and its program: the sockets, the readiness socket and LISTEN_PID have to
# survive it.
exec "$SERVE" "$@"
