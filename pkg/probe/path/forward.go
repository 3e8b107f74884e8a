package path

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// ForwardVerb is the first argument with which a program that builds paths of kind tun-udp is started again by itself; it then has to call
// Forward and end with its result.
const ForwardVerb = "probe-forward"

// Descriptors of a forwarder.
const (
	tunDescriptor = 3 + iota
	socketDescriptor
)

// Forward carries packets between a TUN device and a connected UDP socket, until one of them fails.
func Forward() error {
	ended := make(chan error, 1)
	copyPackets := func(from, to int) {
		runtime.LockOSThread()
		b := make([]byte, 1<<16)
		for {
			n, err := unix.Read(from, b)
			if err == nil {
				_, err = unix.Write(to, b[:n])
			}
			switch {
			case err == nil, errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINVAL):
				// The other forwarder is not there yet, or the packet is none: it is lost, as on a wire.
			default:
				select {
				case ended <- fmt.Errorf("probe-forward: from descriptor %d to %d: %w", from, to, err):
				default:
				}
				return
			}
		}
	}
	go copyPackets(tunDescriptor, socketDescriptor) // both end with the process
	go copyPackets(socketDescriptor, tunDescriptor)
	return <-ended
}

// buildSleeve has a process on each node that takes packets from a TUN device and sends them to the other in datagrams.
func buildSleeve(_ context.Context, s *site) error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir(node1), 0o700); err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return os.RemoveAll(s.dir(node1)) })
	mtu := s.want.mtu() - udpOverhead
	for i, n := range nodes {
		tun, err := n.tun(tunnelDevice, s.dir(node1))
		if err != nil {
			return err
		}
		socket, err := n.connected(netip.AddrPortFrom(wire[i].Addr(), sleevePort), netip.AddrPortFrom(wire[1-i].Addr(), sleevePort))
		if err != nil {
			return errors.Join(err, tun.Close())
		}
		_, err = s.start(n, filepath.Join(s.dir(node1), "log"), []string{"GOMAXPROCS=2"}, []*os.File{tun, socket}, "/proc/self/exe", ForwardVerb)
		if err := errors.Join(err, tun.Close(), socket.Close()); err != nil { // the forwarder has its own
			return err
		}
		link, err := n.byName(tunnelDevice)
		if err != nil {
			said, _ := os.ReadFile(filepath.Join(s.dir(node1), "log"))
			return fmt.Errorf("%w: the forwarder says %q", err, said)
		}
		if err := n.link.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("netns %s: link set %s mtu %d: %w", n.name, tunnelDevice, mtu, err)
		}
	}
	return s.routeThroughTunnel(nodes, mtu, tunnel{})
}

// tunNode is the number of /dev/net/tun, of admin-guide/devices.txt of the kernel.
var tunNode = int(unix.Mkdev(10, 200))

// tun makes a TUN device, which is there as long as the file is open. Where nothing has made the file that the driver is asked by, as in a guest without
// udev(7), it is made in dir; to open it loads the module.
func (s *space) tun(name, dir string) (*os.File, error) {
	device := "/dev/net/tun"
	if _, err := os.Stat(device); errors.Is(err, fs.ErrNotExist) {
		device = filepath.Join(dir, "tun")
		if err := unix.Mknod(device, unix.S_IFCHR|0o600, tunNode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("mknod %s c 10 200: %w", device, err)
		}
	}
	fd := -1
	err := s.do(func() (err error) { // the device is in the namespace in which the file is opened
		fd, err = unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, lacks("open tun, "+device, "this kernel has no TUN devices", err, unix.ENODEV, unix.ENXIO)
	}
	f := os.NewFile(uintptr(fd), device)
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netns %s: tuntap add %s mode tun: %w", s.name, name, err), f.Close())
	}
	return f, nil
}

// connected opens a blocking UDP socket.
func (s *space) connected(local, remote netip.AddrPort) (*os.File, error) {
	var f *os.File
	err := s.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "udp")
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(remote.Port()), Addr: remote.Addr().As4()}); err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("netns %s: udp socket from %s to %s: %w", s.name, local, remote, err)
	}
	return f, nil
}
