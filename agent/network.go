package agent

import (
	"context"
	"net/netip"

	"consort.dev/consort/agent/network"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// sawNetwork remembers the network; it is made when a machine joins it.
func (a *Agent) sawNetwork(ctx context.Context, n *estate.Network, gone bool) {
	a.remember(func() { put(a.networks, &n.Head, n, gone) })
	if !gone || a.Network == nil {
		return
	}
	if err := a.Network.Remove(ctx, n.Metadata.Project, n.Metadata.Name); err != nil {
		a.Log.Warn("remove network", "network", n.Metadata.Name, "error", err)
	}
}

// sawContext remembers the context, and has its network let through what it
// says now: machines that run are no exception. With the context every way out
// goes.
func (a *Agent) sawContext(ctx context.Context, x *estate.Context, gone bool) {
	a.remember(func() { put(a.contexts, &x.Head, x, gone) })
	if a.Network == nil || x.Spec.Network == "" {
		return
	}
	spec := x.Spec
	if gone {
		spec.Egress = nil
	}
	n, err := a.network(x.Metadata.Project, x.Spec.Network, &spec)
	if err == nil {
		err = a.Network.Change(ctx, n)
	}
	if err != nil {
		a.Log.Warn("change what a context lets through", "context", x.Metadata.Name, "error", err)
	}
}

// internet is where machines without a context may go.
func internet() []estate.Egress { return []estate.Egress{{CIDR: "0.0.0.0/0"}} }

// network is the network as this host makes it for the context, or for machines
// without one.
func (a *Agent) network(project, name string, of *estate.ContextSpec) (network.Network, error) {
	var known *estate.Network
	a.remember(func() { known = a.networks[project+"/"+name] })
	if known == nil {
		return network.Network{}, fault.Unavailable.Errorf("waiting for network %s", name)
	}
	subnet, err := netip.ParsePrefix(known.Spec.Subnet)
	if err != nil {
		return network.Network{}, fault.Invalid.Errorf("network %s: %w", name, err)
	}
	n := network.Network{Project: project, Name: name, Subnet: subnet, Egress: known.Spec.Egress, Ways: internet()}
	if of != nil {
		n.Ways = of.Egress
	}
	return n, nil
}

// contextOf returns what the machine's context says, or nil where it has none.
func (a *Agent) contextOf(m *estate.Machine) (*estate.ContextSpec, error) {
	if m.Spec.Context == "" {
		return nil, nil
	}
	var x *estate.Context
	a.remember(func() { x = a.contexts[m.Metadata.Project+"/"+m.Spec.Context] })
	if x == nil {
		return nil, fault.Unavailable.Errorf("waiting for context %s", m.Spec.Context)
	}
	return &x.Spec, nil
}

// port joins the machine's i-th NIC to its network in the form that the host
// takes, making the network on first use.
func (k *keeper) port(ctx context.Context, m *estate.Machine, n estate.NIC, i int) (driver.NIC, error) {
	a, nic := k.agent, driver.NIC{MAC: k.mac(n, i)}
	form := a.Host.CanFor(k.guestType(m), estate.CanNetwork).Value
	if form == estate.NetworkByName {
		nic.Name = n.Network // the hypervisor has it, and gives addresses on it
		return nic, nil
	}
	if a.Network == nil {
		return nic, fault.Unsupported.Errorf("no networks on this host: %s", a.NoNetwork)
	}
	of, err := a.contextOf(m)
	if err != nil {
		return nic, err
	}
	want, err := a.network(m.Metadata.Project, n.Network, of)
	if err != nil {
		return nic, err
	}
	if err := a.Network.Ensure(ctx, want); err != nil {
		return nic, err
	}
	card := network.Card{Machine: k.id, NIC: i, MAC: nic.MAC}
	if form == estate.NetworkByBridge {
		nic.Bridge, err = a.Network.Bridge(ctx, want.Project, want.Name, card)
		return nic, err
	}
	port, err := a.Network.Join(ctx, want.Project, want.Name, card)
	nic.Netns, nic.Tap = port.Netns, port.Tap
	return nic, err
}
