#!/bin/sh
# Removes what install.sh has laid out. Settings, models and logs stay, unless told otherwise:
#
#     sh deploy/systemd/uninstall.sh
#     sh deploy/systemd/uninstall.sh --purge            settings, models, logs and the user too
#     sh deploy/systemd/uninstall.sh --root /tmp/try    what is below a folder
set -eu

root="" purge=""
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=${2:?--root needs a folder}; shift 2 ;;
        --purge) purge=yes; shift ;;
        -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "uninstall.sh: error: $1 is not known (--help shows what is)" >&2; exit 2 ;;
    esac
done
if [ -z "$root" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "uninstall.sh: error: needs root" >&2
        exit 1
    fi
    systemctl disable --now --quiet strokeserve || true
fi

rm -rf "$root/opt/strokeserve" "$root/var/cache/strokeserve"
rm -f "$root/etc/systemd/system/strokeserve.service"
[ -n "$root" ] || systemctl daemon-reload
if [ -n "$purge" ]; then
    rm -rf "$root/etc/strokeserve" "$root/srv/strokeserve" "$root/var/log/strokeserve"
    [ -n "$root" ] || userdel strokeserve || true
    echo "removed, settings, models and logs too"
else
    echo "removed; /etc/strokeserve, /srv/strokeserve and /var/log/strokeserve are still there (--purge removes them)"
fi
