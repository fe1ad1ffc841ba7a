#!/usr/bin/env bash
# Reports on a descriptor of two digits, for which not every shell has a redirection; echo ends it with a
# newline.
[ "$LISTEN_READY_FD" -ge 10 ] || exit 9
echo READY=1 >&"$LISTEN_READY_FD"
