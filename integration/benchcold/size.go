package main

import (
	"fmt"
	"strings"
)

// A size says how much there is of everything.
type size struct {
	switches, ports, routers, acls, local, chassis int
}

func (z size) String() string {
	return fmt.Sprintf("%d switches x %d ports, %d routers, %d ACLs, %d local ports, %d other chassis",
		z.switches, z.ports, z.routers, z.acls, z.local, z.chassis)
}

// check refuses what addresses and names have no room for.
func (z size) check() error {
	switch {
	case z.switches < 1 || z.switches > 250:
		return fmt.Errorf("%d switches: want 1 to 250", z.switches)
	case z.ports < 1 || z.ports > 250:
		return fmt.Errorf("%d ports: want 1 to 250", z.ports)
	case z.routers < 0 || z.routers > 50:
		return fmt.Errorf("%d routers: want 0 to 50", z.routers)
	case z.acls < 0 || z.acls > 20000:
		return fmt.Errorf("%d ACLs: want 0 to 20000", z.acls)
	case z.local < 0 || z.local > z.switches*z.ports:
		return fmt.Errorf("%d local ports of %d", z.local, z.switches*z.ports)
	case z.chassis < 1 || z.chassis > 150:
		return fmt.Errorf("%d chassis: want 1 to 150", z.chassis)
	}
	return nil
}

// port names the p-th port of the s-th switch.
func port(s, p int) string { return fmt.Sprintf("sw%d-p%d", s, p) }

// isLocal spreads the local ports evenly over the switches.
func (z size) isLocal(s, p int) bool { return p*z.switches+s < z.local }

// northbound returns the contents as scripts of ovn-nbctl commands, each of a size that fits a command line.
func (z size) northbound() []string {
	var scripts []string
	for s := range z.switches {
		var b strings.Builder
		fmt.Fprintf(&b, "ls-add sw%d\n", s)
		for p := range z.ports {
			fmt.Fprintf(&b, "lsp-add sw%d %s\n", s, port(s, p))
			fmt.Fprintf(&b, "lsp-set-addresses %s \"0a:00:00:00:%02x:%02x 10.%d.0.%d\"\n", port(s, p), s, p+1, s, p+1)
			fmt.Fprintf(&b, "lsp-set-port-security %s \"0a:00:00:00:%02x:%02x 10.%d.0.%d\"\n", port(s, p), s, p+1, s, p+1)
		}
		scripts = append(scripts, b.String())
	}
	return append(scripts, z.routing(), z.policy())
}

// routing gives each switch a router, and joins the routers by a switch of their own.
func (z size) routing() string {
	if z.routers == 0 {
		return ""
	}
	var b strings.Builder
	attach := func(r int, sw, mac, network string) {
		fmt.Fprintf(&b, "lrp-add lr%d lr%d-%s %s %s\n", r, r, sw, mac, network)
		fmt.Fprintf(&b, "lsp-add %s %s-lr%d\nlsp-set-type %s-lr%d router\nlsp-set-addresses %s-lr%d router\n", sw, sw, r, sw, r, sw, r)
		fmt.Fprintf(&b, "lsp-set-options %s-lr%d router-port=lr%d-%s\n", sw, r, r, sw)
	}
	b.WriteString("ls-add join\n")
	for r := range z.routers {
		fmt.Fprintf(&b, "lr-add lr%d\n", r)
		attach(r, "join", fmt.Sprintf("0a:00:00:01:00:%02x", r+1), fmt.Sprintf("100.64.0.%d/16", r+1))
	}
	for s := range z.switches {
		attach(s%z.routers, fmt.Sprintf("sw%d", s), fmt.Sprintf("0a:00:00:00:%02x:fe", s), fmt.Sprintf("10.%d.0.254/24", s))
		for r := range z.routers {
			if r != s%z.routers {
				fmt.Fprintf(&b, "lr-route-add lr%d 10.%d.0.0/24 100.64.0.%d\n", r, s, s%z.routers+1)
			}
		}
	}
	return b.String()
}

// policy has a port group for every 40th port of the deployment, an address set of 30 addresses for each, and ACLs
// between them, most stateful, a third of them with a set of ports.
func (z size) policy() string {
	const setSize = 30
	groups := max(1, z.switches*z.ports/40)
	var b strings.Builder
	for g := range groups {
		var members, addresses []string
		for i := g; i < z.switches*z.ports; i += groups {
			members = append(members, port(i%z.switches, i/z.switches))
		}
		for i := range setSize {
			addresses = append(addresses, fmt.Sprintf("10.%d.%d.%d", g%z.switches, 1+i/200, 1+i%200))
		}
		fmt.Fprintf(&b, "pg-add pg%d %s\n", g, strings.Join(members, " "))
		fmt.Fprintf(&b, "create address_set name=as%d addresses=\"%s\"\n", g, strings.Join(addresses, " "))
	}
	for a := range z.acls {
		g, peer := a%groups, (a*7+3)%groups
		match := fmt.Sprintf("outport == @pg%d && ip4.src == \\$as%d", g, peer)
		switch a % 3 {
		case 0:
			match += fmt.Sprintf(" && tcp.dst == %d", 1000+a)
		case 1:
			match += fmt.Sprintf(" && udp.dst == {%d, %d, %d}", 53, 123, 2000+a)
		}
		fmt.Fprintf(&b, "acl-add pg%d to-lport %d \"%s\" allow-related\n", g, 1000+a/groups, match)
	}
	for g := range min(groups, z.acls) {
		fmt.Fprintf(&b, "acl-add pg%d to-lport 900 \"outport == @pg%d && ip4\" drop\n", g, g)
	}
	return b.String()
}

// southbound returns the other chassis and their ports as scripts of ovn-sbctl commands.
func (z size) southbound() []string {
	var b strings.Builder
	for c := range z.chassis {
		fmt.Fprintf(&b, "chassis-add hv%d geneve 172.31.0.%d\n", c, 100+c)
		fmt.Fprintf(&b, "set chassis hv%d other_config:port-up-notif=true other_config:ct-no-masked-label=true "+
			"other_config:mac-binding-timestamp=true other_config:ovn-ct-lb-related=true\n", c)
	}
	scripts := []string{b.String()}
	for s := range z.switches {
		b.Reset()
		for p := range z.ports {
			if !z.isLocal(s, p) {
				fmt.Fprintf(&b, "lsp-bind %s hv%d\n", port(s, p), (s*z.ports+p)%z.chassis)
			}
		}
		scripts = append(scripts, b.String())
	}
	return scripts
}
