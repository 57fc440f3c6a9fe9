package clones_test

import (
	"slices"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/test/guest"
)

// recipe is that of the small desktop with what else must not be alike: an SSH
// server's keys, and a shell that draws random numbers of its own.
func recipe(t *testing.T) estate.Recipe {
	t.Helper()
	r := guest.Recipe(t)
	r.Packages = append(slices.Clone(r.Packages), "openssh-server")
	r.Enable = append(slices.Clone(r.Enable), "ssh.service")
	r.Files = slices.DeleteFunc(slices.Clone(r.Files), func(f estate.RecipeFile) bool { return f.Path == firstTerminal })
	r.Files = append(r.Files,
		estate.RecipeFile{Path: "/etc/systemd/system/ssh.service.d/keys.conf", Content: keys},
		estate.RecipeFile{Path: "/usr/local/sbin/make-host-keys", Mode: "0755", Content: makeKeys},
		estate.RecipeFile{Path: firstTerminal, Mode: "0755", Content: terminal},
		estate.RecipeFile{Path: "/etc/consort/identity.d/shell", Mode: "0755", Content: shell},
		estate.RecipeFile{Path: "/home/user/.bashrc", Content: "echo $RANDOM $RANDOM $RANDOM > /run/user/1000/drawn\n"},
	)
	return r
}

const firstTerminal = "/usr/local/bin/first-terminal"

const keys = `[Service]
ExecStartPre=
ExecStartPre=/usr/local/sbin/make-host-keys
`

// makeKeys makes them when the machine boots first: the image has none.
const makeKeys = `#!/bin/sh
for kind in ed25519 ecdsa; do
	key=/etc/ssh/ssh_host_${kind}_key
	[ -s $key ] || ssh-keygen -q -t $kind -N '' -f $key || exit 1
done
`

// terminal begins a shell that was killed anew.
const terminal = `#!/bin/sh
[ -p /run/consort/drawn ] && echo drawn > /run/consort/drawn
until bash; do
	[ $? = 137 ] || exit
done
`

// shell ends the shell whose random numbers are the template's.
const shell = `#!/bin/sh
rm -f /run/user/1000/drawn
for p in /proc/[0-9]*; do
	read -r _ name _ 2>/dev/null < $p/stat && [ "$name" = '(bash)' ] && kill -KILL ${p#/proc/}
done
exit 0
`
