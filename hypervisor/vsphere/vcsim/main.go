// Command vcsim is the vendor's simulated vCenter, or single host of ESXi, in a
// process of its own, or govc, the vendor's own client, when it is started as
// "vcsim govc". Tests start it; nothing of Consort does.
//
// It is no part of the tests' own process since it writes the name of a new
// machine while it reads it for whoever waits for updates (createVM.Run in
// folder.go of govmomi 0.54.1 holds the lock of the folder, not that of the
// machine): a race of its own, which the race detector would hold against us.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"

	"github.com/vmware/govmomi/cli"
	_ "github.com/vmware/govmomi/cli/vm"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "govc" {
		os.Exit(cli.Run(os.Args[2:]))
	}
	user := flag.String("user", "", "the user it lets in")
	password := flag.String("password", "", "his password")
	ca := flag.String("ca", "", "the file that its certificate is written to")
	alone := flag.Bool("alone", false, "be a single host, without a vCenter")
	flag.Parse()
	log.SetOutput(io.Discard) // it tells of every fault it is told to make
	if err := run(url.UserPassword(*user, *password), *ca, *alone); err != nil {
		fmt.Fprintf(os.Stderr, "vcsim: %v\n", err)
		os.Exit(1)
	}
}

// run serves until nobody holds its input any more. It says on its output at
// which address, and answers there each order with a line: "ok", and what it was
// asked for, or "no", and why.
func run(user *url.Userinfo, ca string, alone bool) error {
	m := simulator.VPX()
	m.Host, m.ClusterHost = 0, 2
	if alone {
		m = simulator.ESX()
	}
	m.Machine = 0
	if err := m.Create(); err != nil {
		return err
	}
	defer m.Remove()
	m.Service.TLS = new(tls.Config)
	m.Service.Listen = &url.URL{User: user}
	server := m.Service.NewServer() // not closed: it would wait for waits for updates
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		return err
	}
	fmt.Println("ok", server.URL.Host)
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		if answer, err := obey(m, orders.Text()); err != nil {
			fmt.Println("no", err)
		} else {
			fmt.Println("ok", answer)
		}
	}
	return orders.Err()
}

// faults are the kinds of failure that it can be told of.
var faults = map[string]simulator.FaultType{
	"generic": simulator.FaultTypeGeneric, "in-use": simulator.FaultTypeResourceInUse, "not-authenticated": simulator.FaultTypeNotAuthenticated,
}

// obey carries out one order:
//
//	fail METHOD FAULT SKIP   one call fails, after so many that do not
//	heal                     none fails any more; the answer is how many have
//	delay TASK MS            tasks of that name take so many ms longer
//	lose ID, find ID         the vCenter loses sight of a machine, or has it again
func obey(m *simulator.Model, order string) (answer string, err error) {
	var verb, what, kind string
	var n int
	fmt.Sscan(order, &verb, &what)
	switch verb {
	case "fail":
		fmt.Sscan(order, &verb, &what, &kind, &n)
		fault, known := faults[kind]
		if !known {
			return "", fmt.Errorf("there is no fault %q", kind)
		}
		m.Service.AddFaultRule(&simulator.FaultInjectionRule{
			MethodName: what, ObjectType: "*", ObjectName: "*", Probability: 1, FaultType: fault, SkipCount: n, MaxCount: 1, Enabled: true,
		})
	case "heal":
		made := m.Service.GetFaultStats()["total_injections"]
		m.Service.ClearFaultRules()
		return fmt.Sprint(made), nil
	case "delay":
		fmt.Sscan(order, &verb, &what, &n)
		simulator.TaskDelay.MethodDelay = map[string]int{what: n, "LockHandoff": 0} // which lets others read meanwhile
	case "lose":
		return "", connect(m, what, types.VirtualMachineConnectionStateDisconnected)
	case "find":
		return "", connect(m, what, types.VirtualMachineConnectionStateConnected)
	default:
		return "", fmt.Errorf("there is no order %q", verb)
	}
	return "", nil
}

// connect says how the vCenter sees the machine of that UUID.
func connect(m *simulator.Model, id string, state types.VirtualMachineConnectionState) error {
	ctx := m.Service.Context
	for _, o := range m.Map().All("VirtualMachine") {
		if v := o.(*simulator.VirtualMachine); v.Config.Uuid == id {
			ctx.WithLock(v, func() {
				ctx.Update(v, []types.PropertyChange{{Name: "runtime.connectionState", Val: state}})
			})
			return nil
		}
	}
	return fmt.Errorf("there is no machine %s", id)
}
