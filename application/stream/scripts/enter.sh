# enter DIGITS USER HOME COMMAND...: run a command of a layer in a namespace of
# its own. Runs as root in a mount namespace made for it; nothing of the layer
# is run as root: the view is put together to one side, and only bwrap, already
# the person, turns to it.
set -eu
digits=$1 user=$2 home=$3
shift 3
layer=/run/consort/layers/$digits
cache=/run/consort/caches/$digits
stage=/run/consort/stage
uid=$(id -u "$user")

mount -t tmpfs -o mode=0755,size=1m consort "$stage"
view=
for dir in etc opt usr var; do
	[ -d "$layer/$dir" ] || continue
	lower=$layer/$dir:/$dir
	[ -d "$cache/$dir" ] && lower=$cache/$dir:$lower
	mkdir "$stage/$dir"
	mount -t overlay -o "ro,nosuid,nodev,lowerdir=$lower" consort "$stage/$dir"
	view="$view --ro-bind $stage/$dir /$dir"
done
# The overlays hold what they need; other layers are none of its business.
for mounted in /run/consort/layers/*; do
	if [ -d "$mounted" ]; then umount "$mounted" 2>/dev/null || :; fi
done

set -- -- "$@"
[ -d /dev/dri ] && set -- --dev-bind /dev/dri /dev/dri "$@"
[ -d /tmp/.X11-unix ] && set -- --ro-bind /tmp/.X11-unix /tmp/.X11-unix "$@"
for file in /run/systemd/resolve /run/resolvconf /run/nscd; do
	[ -e "$file" ] && set -- --ro-bind "$file" "$file" "$@"
done
if [ -n "${CONSORT_OUT:-}" ]; then
	set -- --bind "$CONSORT_OUT" /run/out --chdir / "$@"
elif [ -d "$home" ]; then
	set -- --bind "$home" "$home" --chdir "$home" "$@"
fi

cd /
exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --no-new-privs --reset-env \
	bwrap --unshare-user --unshare-pid --unshare-ipc --unshare-uts --new-session --die-with-parent \
	--ro-bind / / $view \
	--dev /dev --proc /proc --tmpfs /tmp --tmpfs /var/tmp --tmpfs /run \
	--perms 0700 --dir "/run/user/$uid" \
	--setenv DISPLAY :0 --setenv LANG C.UTF-8 --setenv HOME "$home" \
	--setenv XDG_RUNTIME_DIR "/run/user/$uid" \
	--setenv PATH /usr/local/bin:/usr/bin:/bin:/usr/games \
	--setenv NO_AT_BRIDGE 1 --setenv GSETTINGS_BACKEND memory --setenv DBUS_SESSION_BUS_ADDRESS disabled: \
	"$@"
