# One step of carrying a file, as the person whose home it is in: VERB PATH ...
# It leads nowhere but down from that home, links included. What it says last is
# for the host; an exit from 20 on is a reason that files.go knows.
set -u
umask 077
verb=$1 path=$2
cd -P -- "$HOME" 2>/dev/null || exit 20
home=$(pwd -P)
dir=. name=${path##*/}
[ "$name" = "$path" ] || dir=./${path%/*}

# inside succeeds where a path, without its links, is in the home.
inside() {
	case $(realpath -m -- "$1")/ in
	"$home"/?*) return 0 ;;
	esac
	[ "$(realpath -m -- "$1")" = "$home" ]
}
inside "$dir" || exit 21

case $verb in
begin) # prints the name of an empty file beside the one that is to be
	mkdir -p -- "$dir" && cd -P -- "$dir" || exit 22
	[ ! -e "./$name" ] && [ ! -L "./$name" ] || exit 23
	# What a host left behind that went away.
	find . -maxdepth 1 -name '.consort-*.part' -mmin +60 -delete
	part=$(mktemp ./.consort-XXXXXXXXXX.part) || exit 22
	echo "${part#./}"
	;;
add) # PART: adds what comes to it
	cd -P -- "$dir" && [ -f "./$3" ] && [ ! -L "./$3" ] || exit 22
	cat >>"./$3" || exit 24
	;;
end) # PART DIGEST: gives it its name, if it is whole and the name is free
	cd -P -- "$dir" || exit 22
	sum=$(sha256sum <"./$3") || exit 22
	[ "${sum%% *}" = "$4" ] || exit 25
	mv -nT -- "./$3" "./$name"
	[ -e "./$3" ] || exit 0
	[ ! -e "./$name" ] || exit 23
	exit 22
	;;
drop) # PART: forgets it
	cd -P -- "$dir" && rm -f -- "./$3"
	;;
size) # prints how long the file is
	inside "$dir/$name" || exit 21
	[ -e "$dir/$name" ] || exit 26
	[ -f "$dir/$name" ] && [ -r "$dir/$name" ] || exit 27
	stat -L -c %s -- "$dir/$name"
	;;
read) # FROM COUNT: prints so many bytes of it
	inside "$dir/$name" || exit 21
	[ -f "$dir/$name" ] || exit 27
	tail -c "+$(($3 + 1))" -- "$dir/$name" | head -c "$4"
	;;
*)
	exit 1
	;;
esac
