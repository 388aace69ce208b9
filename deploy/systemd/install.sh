#!/bin/sh
# Installs, or upgrades, StrokeServe as a service of systemd. Run as root from a checkout:
#
#     sh deploy/systemd/install.sh
#     sh deploy/systemd/install.sh --root /tmp/try      lays everything out below a folder, and touches nothing else
#     sh deploy/systemd/install.sh --venv .venv-serve   takes an environment that is there, for a box without a network
#     sh deploy/systemd/install.sh --extra web          with what --http needs, or openvino: for --runtime openvino
#
# What there is afterwards:
#     /opt/strokeserve/releases/VERSION-TIME   the program and its environment; /opt/strokeserve/current is a link to the
#                                              one in use: point it to another and restart to go back
#     /etc/strokeserve/server.env              settings; kept when it is there already
#     /srv/strokeserve/models              models; those that are there already are kept
#     /etc/systemd/system/strokeserve.service  the unit
set -eu

root="" venv="" purpose=server
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=${2:?--root needs a folder}; shift 2 ;;
        --venv) venv=$(cd "${2:?--venv needs a folder}" && pwd); shift 2 ;;
        --extra) purpose=${2:?--extra needs web, openvino or signing}; shift 2 ;;
        -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "install.sh: error: $1 is not known (--help shows what is)" >&2; exit 2 ;;
    esac
done
case $purpose in
    server | web | openvino | signing) ;;
    *) echo "install.sh: error: --extra: $purpose is none of web, openvino, signing" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "install.sh: error: needs root; --root DIR lays everything out below a folder for a look" >&2
    exit 1
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "install.sh: error: $python is older than Python 3.11; PYTHON=python3.11 sh $0" >&2
    exit 1
fi
version=$("$python" -c 'import proto; print(proto.__version__)')
release=/opt/strokeserve/releases/$version-$(date -u +%Y%m%dT%H%M%S)
[ ! -e "$root$release" ] || release=$release-$$ # one of the same second is there already

if [ -z "$root" ] && ! id strokeserve >/dev/null 2>&1; then
    useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin strokeserve
fi

echo "laying out $root$release"
mkdir -p "$root$release/app" "$root/etc/strokeserve" "$root/etc/systemd/system" "$root/srv/strokeserve/models"
cp -R proto server client docs LICENSE README.md CHANGELOG.md "$root$release/app"
find "$root$release/app" -name __pycache__ -type d -prune -exec rm -rf {} +
if [ -n "$venv" ]; then
    ln -s "$venv" "$root$release/venv"
else
    "$python" -m venv "$root$release/venv"
    "$root$release/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r "requirements/$purpose.lock"
fi

[ -e "$root/etc/strokeserve/server.env" ] || cp deploy/systemd/server.env "$root/etc/strokeserve/server.env"
for model in models/*/*/; do
    model=${model%/}
    [ -e "$root/srv/strokeserve/$model" ] || {
        mkdir -p "$root/srv/strokeserve/$(dirname "$model")"
        cp -R "$model" "$root/srv/strokeserve/$model"
    }
done
cp deploy/systemd/strokeserve.service "$root/etc/systemd/system/strokeserve.service"

# The program is root's, so that who breaks into the server cannot change it.
chmod -R u=rwX,go=rX "$root$release/app" "$root/srv/strokeserve"
chmod 0750 "$root/etc/strokeserve"
chmod 0640 "$root/etc/strokeserve/server.env"
if [ -z "$root" ]; then
    chown -R root:strokeserve /etc/strokeserve /srv/strokeserve
    # The server writes active.json there, and because of the sticky bit cannot touch what others have put there.
    find /srv/strokeserve/models -maxdepth 1 -name active.json -exec chown strokeserve {} +
fi
chmod 1770 "$root/srv/strokeserve/models"

# One rename: whoever starts the service at this moment gets the old release or the new one.
ln -s "releases/${release##*/}" "$root/opt/strokeserve/next"
mv -T "$root/opt/strokeserve/next" "$root/opt/strokeserve/current"

if [ -n "$root" ]; then
    echo "done: $version below $root"
    exit 0
fi
systemctl daemon-reload
systemctl enable --quiet strokeserve
systemctl restart strokeserve
systemctl --no-pager --lines 5 status strokeserve
echo "done: $version. Settings: /etc/strokeserve/server.env. Log: journalctl -u strokeserve"
