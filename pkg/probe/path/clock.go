package path

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// stamping is what a device says of its timestamps; the zero one, of one without driver for them, says nothing.
func (s *space) stamping(dev string) (info unix.EthtoolTsInfo, err error) {
	err = s.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing is written to it
		got, err := unix.IoctlGetEthtoolTsInfo(fd, dev)
		if err == nil {
			info = *got
		}
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return unix.EthtoolTsInfo{Phc_index: -1}, nil
	}
	if err != nil {
		return info, fmt.Errorf("netns %s: ethtool -T %s: %w", s.name, dev, err)
	}
	return info, nil
}

// oneClock reports whether two devices stamp all packets by the same clock of a NIC, and whose timestamps a probe has then, in words, with the reason
// if they are not the NIC's.
func oneClock(client, server unix.EthtoolTsInfo) (bool, string) {
	for _, e := range []struct {
		side string
		info unix.EthtoolTsInfo
	}{{"client", client}, {"server", server}} {
		const needs = unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_RX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE
		switch i := e.info; {
		case i.Phc_index < 0 || i.So_timestamping&needs != needs:
			return false, "the kernel's: the " + e.side + "'s device has no clock of hardware"
		case i.Tx_types&(1<<unix.HWTSTAMP_TX_ON) == 0 || i.Rx_filters&(1<<unix.HWTSTAMP_FILTER_ALL) == 0:
			return false, "the kernel's: the " + e.side + "'s device stamps some packets only, as those of PTP"
		}
	}
	if client.Phc_index != server.Phc_index {
		return false, fmt.Sprintf("the kernel's: the devices have different clocks, %d and %d", client.Phc_index, server.Phc_index)
	}
	return true, fmt.Sprintf("the NIC's, by clock %d", client.Phc_index)
}
