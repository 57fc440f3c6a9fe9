// Probe is what somebody runs who has taken over a machine's process: one try to
// get out of it a run. It says what came of it.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// order is the base64 of what there is to be got at, as JSON; the linker sets it.
var order string

// goals are what there is to be got at, and what the process it stands for is
// held by besides what it inherits.
type goals struct {
	Version string // what the program is to say of itself

	Disk, Record, Machines, Secret, Dir, Stray, Block, Sibling string // paths
	Victim, SiblingPID                                         int    // processes
	TCP, UDP, Abstract, API, Control, Screen, Agent            string // addresses
	Memory                                                     int    // System V
	Filters                                                    [][]unix.SockFilter
}

func main() {
	var g goals
	text, err := base64.StdEncoding.DecodeString(order)
	if err == nil {
		err = json.Unmarshal(text, &g)
	}
	if err != nil {
		fmt.Println("no order:", err)
		os.Exit(2)
	}
	if len(os.Args) == 2 {
		stand(g, os.Args[1])
		return
	}
	way := "victim"
	for _, a := range os.Args {
		if name, is := strings.CutPrefix(a, "guest="); is {
			way = name
		}
	}
	try(g, way)
}

// stand is for what is asked of the program before it is a machine's.
func stand(g goals, what string) {
	switch what {
	case "--version":
		fmt.Println(g.Version)
	case "ways":
		for _, name := range slices.Sorted(maps.Keys(ways())) {
			fmt.Println(name)
		}
	case "run": // it was run from one that should not have
		fmt.Println("out: it runs")
	case "victim":
		fmt.Println("here")
		time.Sleep(time.Hour)
	}
}

// stay is no way out.
const stay = "stay"

// try tries one way, and says "out" or "held".
func try(g goals, name string) {
	way, known := ways()[name]
	if !known && name != stay {
		fmt.Println("no way", name)
		os.Exit(2)
	}
	fmt.Println("trying", name)
	for _, f := range g.Filters {
		prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
		const all = 1 // SECCOMP_FILTER_FLAG_TSYNC: of all threads
		if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, all, uintptr(unsafe.Pointer(&prog))); e != 0 {
			fmt.Println("not filtered:", e)
			os.Exit(2)
		}
	}
	if name == stay {
		fmt.Println("here")
		time.Sleep(time.Hour) // to be looked at
	}
	time.AfterFunc(10*time.Second, func() {
		fmt.Println("held: it comes to nothing")
		os.Exit(1)
	})
	if err := way(g); err != nil {
		fmt.Println("held:", err)
		os.Exit(1)
	}
	fmt.Println("out:", name)
}
