// Package content holds the Northbound contents on which agents are compared: hand-written ones, each for one
// feature, and random ones, each from a seed.
//
// A content is text: commands of ovn-nbctl(8), ovn-sbctl(8) and ovs-vsctl(8), one per line, quoted as in a shell. It
// describes a deployment as one chassis sees it; other chassis exist only as rows.
package content

import (
	"fmt"
	"strings"
)

// A Content is one deployment.
type Content struct {
	Name  string // unique, fit for a subtest's name
	About string // what it is for

	NB string // ovn-nbctl commands
	SB string // ovn-sbctl commands, for when ovn-northd has worked off NB
	VS string // ovs-vsctl commands for the local chassis, before an agent starts

	// Local lists the logical ports that have an interface on the local chassis.
	Local []string

	// Deviates says that there is something that agents are known to translate differently, see parity.Deviations.
	Deviates bool

	// AnyTunnel says that ovn-controller takes whichever of several tunnels to a chassis comes first in a hash table.
	AnyTunnel bool
}

// All returns the contents that agents must agree on: the hand-written ones and then, for each kind of random one,
// seeds from first up.
func All(first uint64, seeds int) []Content {
	list := Fixed()
	for i := range uint64(seeds) {
		list = append(list, RandomTopology(first+i), RandomACLs(first+i))
	}
	return list
}

// chassis makes another chassis, with the features of ovn-controller 23.03: without them ovn-northd would fall
// back to older logical flows for everyone.
func chassis(name, encaps, ip string) string {
	return fmt.Sprintf(`
	chassis-add %[1]s %[2]s %[3]s
	set chassis %[1]s other_config:port-up-notif=true other_config:ct-no-masked-label=true other_config:mac-binding-timestamp=true other_config:ovn-ct-lb-related=true
`, name, encaps, ip)
}

// ports adds n switch ports name1, name2, ... with addresses that follow from key, a number up to 255 that is
// the same nowhere else.
func ports(sw, name string, key, n int) (nb string, names []string) {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		p := fmt.Sprintf("%s%d", name, i)
		names = append(names, p)
		fmt.Fprintf(&b, "\tlsp-add %s %s\n\tlsp-set-addresses %s \"0a:00:00:00:%02x:%02x 10.%d.%d.%d fd%02x::%x:%x\"\n",
			sw, p, p, key, i&0xff, key, i>>8, i&0xff, key, i>>8, i&0xff)
	}
	return b.String(), names
}

// attach connects a switch to a router; networks are those of the router's port.
func attach(router, sw, mac string, networks ...string) string {
	return fmt.Sprintf(`
	lrp-add %[1]s %[1]s-%[2]s %[3]s %[4]s
	lsp-add %[2]s %[2]s-%[1]s
	lsp-set-type %[2]s-%[1]s router
	lsp-set-addresses %[2]s-%[1]s router
	lsp-set-options %[2]s-%[1]s router-port=%[1]s-%[2]s
`, router, sw, mac, strings.Join(networks, " "))
}

// join connects two routers by a pair of ports.
func join(a, b string, key int) string {
	return fmt.Sprintf(`
	lrp-add %[1]s %[1]s-%[2]s 0a:00:00:01:%02[3]x:01 169.254.%[3]d.1/30 fdff:%[3]x::1/64 peer=%[2]s-%[1]s
	lrp-add %[2]s %[2]s-%[1]s 0a:00:00:01:%02[3]x:02 169.254.%[3]d.2/30 fdff:%[3]x::2/64 peer=%[1]s-%[2]s
`, a, b, key)
}

func script(parts ...string) string { return strings.Join(parts, "\n") }
