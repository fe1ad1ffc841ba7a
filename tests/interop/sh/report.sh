#!/bin/sh
# Reports $1 to the predecessor, if it is not empty; `close` closes the descriptor instead. Then it exits with
# the status $2; with `stay` it does not, but stops.
case $1 in
'') ;;
close) eval "exec $LISTEN_READY_FD>&-" ;;
*) printf %s "$1" >&"$LISTEN_READY_FD" ;;
esac
[ "$2" != stay ] || kill -STOP $$
exit "$2"
