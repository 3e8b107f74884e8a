package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// stampDevice makes the NIC stamp all packets of a device, in the network namespace of the socket fd. The function that it returns makes it as it was.
func stampDevice(fd int, dev string) (func(), error) {
	before, err := unix.IoctlGetHwTstamp(fd, dev)
	if errors.Is(err, unix.EOPNOTSUPP) { // a driver that cannot say how it is set is set to do nothing at first
		before, err = &unix.HwTstampConfig{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("timestamps of %s: SIOCGHWTSTAMP: %w", dev, err)
	}
	undo := func() { _ = unix.IoctlSetHwTstamp(fd, dev, before) } // the device may be gone
	on := unix.HwTstampConfig{Tx_type: unix.HWTSTAMP_TX_ON, Rx_filter: unix.HWTSTAMP_FILTER_ALL}
	if err := unix.IoctlSetHwTstamp(fd, dev, &on); err != nil {
		return nil, fmt.Errorf("timestamps of %s: SIOCSHWTSTAMP: %w", dev, err)
	}
	if on.Tx_type != unix.HWTSTAMP_TX_ON || on.Rx_filter != unix.HWTSTAMP_FILTER_ALL {
		undo()
		return nil, fmt.Errorf("timestamps of %s: the driver has made of type %d and filter %d type %d and filter %d", dev,
			unix.HWTSTAMP_TX_ON, unix.HWTSTAMP_FILTER_ALL, on.Tx_type, on.Rx_filter)
	}
	return undo, nil
}

// stampDevices does it on both sides, or on none.
func (p *path) stampDevices() error {
	for _, side := range []struct {
		fd  int
		dev string
	}{{p.client.fd, p.Client.Device}, {p.server.fd, p.Server.Device}} {
		undo, err := stampDevice(side.fd, side.dev)
		if err != nil {
			p.unstamp()
			return err
		}
		p.stamped = append(p.stamped, undo)
	}
	return nil
}

// unstamp undoes it.
func (p *path) unstamp() {
	for _, undo := range p.stamped {
		undo()
	}
	p.stamped = nil
}
