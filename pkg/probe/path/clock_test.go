package path

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Timestamps are a NIC's if both devices stamp all packets by one clock, and otherwise it is said why not.
func TestOneClock(t *testing.T) {
	good := unix.EthtoolTsInfo{
		So_timestamping: unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_RX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE,
		Phc_index:       3, Tx_types: 1 << unix.HWTSTAMP_TX_ON, Rx_filters: 1 << unix.HWTSTAMP_FILTER_ALL,
	}
	for _, c := range []struct {
		change func(client, server *unix.EthtoolTsInfo)
		ok     bool
		want   string
	}{
		{func(_, _ *unix.EthtoolTsInfo) {}, true, "the NIC's, by clock 3"},
		{func(_, s *unix.EthtoolTsInfo) { s.Phc_index = 4 }, false, "the kernel's: the devices have different clocks, 3 and 4"},
		{func(c, _ *unix.EthtoolTsInfo) { c.Phc_index = -1 }, false, "the kernel's: the client's device has no clock of hardware"},
		{func(_, s *unix.EthtoolTsInfo) { s.So_timestamping = unix.SOF_TIMESTAMPING_TX_SOFTWARE }, false, "the kernel's: the server's device has no clock of hardware"},
		{func(_, s *unix.EthtoolTsInfo) { s.Rx_filters = 1 << unix.HWTSTAMP_FILTER_PTP_V2_EVENT }, false, "the kernel's: the server's device stamps some packets only, as those of PTP"},
		{func(c, _ *unix.EthtoolTsInfo) { c.Tx_types = 0 }, false, "the kernel's: the client's device stamps some packets only, as those of PTP"},
	} {
		client, server := good, good
		c.change(&client, &server)
		if ok, says := oneClock(client, server); ok != c.ok || says != c.want {
			t.Errorf("oneClock(%+v, %+v) = %v, %q; want %v, %q", client, server, ok, says, c.ok, c.want)
		}
	}
}
