package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// A cable between two netdevs is found, and the second is left as it was; where there is none that is said.
func TestCable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root, who alone makes netdevs")
	}
	for _, names := range [][2]string{{"hwcable0", "hwcable1"}, {"hwcable2", "hwcable3"}} {
		v := netlink.NewVeth(netlink.NewLinkAttrs())
		v.Name, v.PeerName = names[0], names[1]
		if err := netlink.LinkAdd(v); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := netlink.LinkDel(v); err != nil {
				t.Error(err)
			}
		})
	}
	if err := cable("hwcable0", "hwcable1", 10*time.Second); err != nil {
		t.Error(err)
	}
	if i, err := net.InterfaceByName("hwcable1"); err != nil || i.Flags&net.FlagUp != 0 {
		t.Errorf("the other end afterwards: %+v, %v", i, err)
	}
	if err := cable("hwcable0", "hwcable3", time.Second); err == nil || !strings.Contains(err.Error(), "does not arrive at hwcable3") {
		t.Errorf("without a cable: %v", err)
	}
	if err := cable("hwcable0", "nosuch0", time.Second); err == nil {
		t.Error("to a netdev that does not exist there is a cable")
	}
}
