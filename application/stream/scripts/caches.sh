# caches WANT...: make what the packages' scripts would have made. Runs inside
# the layer's namespace as nobody; /run/out is laid over the layer afterwards.
set -u
libs=$(echo /usr/lib/*-linux-gnu)
libs=${libs%% *}
for want; do
	case $want in
	schemas)
		to=/run/out/usr/share/glib-2.0/schemas
		mkdir -p $to
		"$libs/glib-2.0/glib-compile-schemas" --targetdir=$to /usr/share/glib-2.0/schemas
		;;
	pixbuf)
		from=$libs/gdk-pixbuf-2.0
		to=/run/out$from/2.10.0
		mkdir -p "$to"
		"$from/gdk-pixbuf-query-loaders" >"$to/loaders.cache"
		;;
	mime)
		mkdir -p /run/out/usr/share
		cp -r /usr/share/mime /run/out/usr/share/
		update-mime-database /run/out/usr/share/mime
		;;
	esac
done
