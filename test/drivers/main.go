// Command drivers reads what runs of the hypervisor conformance suite reported
// and prints which provider keeps which promise.
//
//	go run ./test/drivers [-write] FOLDER
//
// FOLDER is what CONSORT_RESULTS named while the tests ran. It exits with 1
// where a promise is broken. With -write it also brings up to date what is
// believed of each provider's claims, hypervisor/evidence.json, and the tables
// in docs/drivers.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	write := flag.Bool("write", false, "bring hypervisor/evidence.json and docs/drivers.md up to date")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, flag.Arg(0), *write); err != nil {
		fmt.Fprintln(os.Stderr, "drivers:", err)
		os.Exit(1)
	}
}

// Where what -write writes lies, from the top of the repository.
const (
	recordPath = "hypervisor/evidence.json"
	docsPath   = "docs/drivers.md"
)

var errBroken = errors.New("promises are broken")

func run(out io.Writer, folder string, write bool) error {
	subjects, err := read(folder)
	if err != nil {
		return err
	}
	printTable(out, subjects)
	broken := printBroken(out, subjects)
	if write {
		if err := writeRecord(recordPath, subjects); err != nil {
			return err
		}
		if err := writeDocs(docsPath, subjects); err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d %w", broken, errBroken)
	}
	return nil
}
