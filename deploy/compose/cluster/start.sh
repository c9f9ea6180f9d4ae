#!/bin/sh
# Starts a Redis of this name, or the Sentinel, with the password in a file. A command line would show
# it to everybody.
set -eu

name=$1
shift
password=$(cat /run/secrets/redis_password)
umask 077
conf=/tmp/$name.conf

if [ "$name" = sentinel ]; then
    # It writes to its file what it has learnt.
    cat >"$conf" <<END
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel monitor main redis-a 6379 1
sentinel auth-pass main $password
sentinel down-after-milliseconds main 3000
sentinel failover-timeout main 10000
END
    exec redis-server "$conf" --sentinel
fi

cat >"$conf" <<END
include /etc/redis/redis.conf
dir /data
requirepass $password
masterauth $password
replica-announce-ip $name
END
exec redis-server "$conf" "$@"
