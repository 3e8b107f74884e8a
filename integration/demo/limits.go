package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/offloadd/offloadd/integration/lab"
)

// limits says what the demo cannot show on this machine, and why that matters. It finds out by trying.
func limits(ctx context.Context, n *lab.Node) string {
	var b strings.Builder
	if _, err := netlink.GenlFamilyGet("ovs_datapath"); err != nil {
		b.WriteString("  No openvswitch kernel module: packets take OVS's userspace datapath. Flow tables and tunnels are the\n" +
			"  same; throughput and latency are not those of a real node.\n")
	} else {
		b.WriteString("  The openvswitch kernel module is there, but the demo uses the userspace datapath, which works everywhere.\n")
	}

	var missing []string
	for _, try := range []struct{ what, filter string }{
		{"cls_flower", "flower ip_proto tcp action pass"},
		{"act_ct", "flower ct_state -trk action ct"},
	} {
		if err := tryFilter(ctx, n, try.filter); err != nil {
			missing = append(missing, try.what)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintf(&b, "  No %s in this kernel: TC rules, through which a chassis offloads, cannot even run in software.\n", strings.Join(missing, " and no "))
	}

	if n := switchdevs(); n == 0 {
		b.WriteString("  No NIC in switchdev mode: nothing here ran in hardware. Putting the chassis' traffic into the NIC is\n" +
			"  what offloadd is for; what you saw is its software path, which every offloaded flow must agree with.\n")
	} else {
		fmt.Fprintf(&b, "  %d devices are in switchdev mode; the demo leaves them alone.\n", n)
	}
	return b.String()
}

// tryFilter installs a TC filter on the node's loopback, and takes it away again.
func tryFilter(ctx context.Context, n *lab.Node, filter string) error {
	if _, err := n.Exec(ctx, "tc", "qdisc", "add", "dev", "lo", "clsact"); err != nil {
		return err
	}
	_, err := n.Exec(ctx, append([]string{"tc", "filter", "add", "dev", "lo", "ingress", "protocol", "ip"}, strings.Fields(filter)...)...)
	_, del := n.Exec(ctx, "tc", "qdisc", "del", "dev", "lo", "clsact")
	return errors.Join(err, del)
}

// switchdevs counts the devlink devices of this machine whose eswitch is in switchdev mode.
func switchdevs() int {
	if _, err := os.Stat("/sys/bus/pci"); errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	devices, err := netlink.DevLinkGetDeviceList()
	if err != nil {
		return 0 // no devlink, no such devices
	}
	count := 0
	for _, d := range devices {
		if d.Attrs.Eswitch.Mode == "switchdev" {
			count++
		}
	}
	return count
}
