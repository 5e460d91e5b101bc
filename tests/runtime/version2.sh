#!/bin/sh
# version2.sh PYTHON: the tests of limits where control groups are of version 2 alone, whatever this machine's are.
#
# Boots User-mode Linux (LINUX, by default linux.uml: Debian's user-mode-linux), a kernel that runs as a process, on this machine's own files.
# Its first process is this script again: it mounts what a system has, delegates a group to the tests as systemd does, and runs them.
set -eu
cd "$(dirname "$0")/../.."

if [ $$ != 1 ]; then
    result="$PWD/.version2"  # the exit status, which such a kernel has no other way to tell
    rm -f "$result"
    TMPDIR=/dev/shm "${LINUX:-linux.uml}" mem="${MEMORY:-4096M}" root=/dev/root rootfstype=hostfs rootflags=/ rw \
        init="$PWD/tests/runtime/version2.sh" con=null con0=fd:0,fd:1 quiet \
        TEST_PYTHON="$1" TEST_RESULT="$result" </dev/null
    status=$(cat "$result")
    rm "$result"
    exit "$status"
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/shm
for folder in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $folder; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
own=/sys/fs/cgroup/tests
mkdir $own
echo "+cpu +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
"$TEST_PYTHON" -c "import os; os.setxattr('$own', 'user.delegate', b'1')"
echo $$ >$own/cgroup.procs
status=0
"$TEST_PYTHON" -m pytest -p no:cacheprovider -rs tests/runtime/test_cgroups_v2.py tests/security/test_confined_tasks.py || status=$?
echo $status >"$TEST_RESULT"
echo o >/proc/sysrq-trigger  # power off
sleep 60
