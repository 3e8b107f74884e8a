package offload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// patience bounds every kind of traffic here.
const patience = 20 * time.Second

// Transfer sends size bytes through a TCP connection between pods, and then as many in the opposite direction, and returns how
// long that took. That the bytes arrive as others is an error.
func Transfer(ctx context.Context, from, to *lab.Pod, v6 bool, port uint16, size int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lab.Patient(patience))
	defer cancel()
	var lis net.Listener
	err := to.Do(func() (err error) {
		lis, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("[::]:%d", port))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer lis.Close() //nolint:errcheck // one connection was enough
	stop := context.AfterFunc(ctx, func() { _ = lis.Close() })
	defer stop()
	served := make(chan error, 1)
	go func() { // ends with the connection, or with ctx
		served <- func() error {
			c, err := lis.Accept()
			if err != nil {
				return err
			}
			defer c.Close() //nolint:errcheck // the other end knows whether all has arrived
			stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			return errors.Join(receive(c, size), send(c, size))
		}()
	}()
	begin := time.Now()
	err = func() error {
		var c net.Conn
		err := from.Do(func() (err error) {
			c, err = new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(to.Addr(v6), port).String())
			return err
		})
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // all has arrived, or that has failed
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		return errors.Join(send(c, size), receive(c, size))
	}()
	took := time.Since(begin)
	if err != nil {
		cancel()
	}
	if err := errors.Join(err, <-served); err != nil {
		return 0, fmt.Errorf("transfer from %s to %s: %w", from.Name, to.Name, err)
	}
	return took, nil
}

// send writes size bytes that look random.
func send(w io.Writer, size int) error {
	_, err := io.CopyN(w, rand.NewChaCha8([32]byte{}), int64(size))
	return err
}

// receive reads size bytes and checks that they are those of send.
func receive(r io.Reader, size int) error {
	got, want := sha256.New(), sha256.New()
	if _, err := io.CopyN(got, r, int64(size)); err != nil {
		return err
	}
	if err := send(want, size); err != nil {
		return err
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("%d bytes arrived, but others", size)
	}
	return nil
}

// Exchange sends count numbered requests through UDP, each after the answer to the one before or half a second, and returns how many
// were answered.
func Exchange(ctx context.Context, from, to *lab.Pod, v6 bool, port uint16, count int) (answered int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends Echo
	if err := Echo(ctx, to, port); err != nil {
		return 0, err
	}
	var c net.Conn
	err = from.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(to.Addr(v6), port).String())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("exchange from %s to %s: %w", from.Name, to.Name, err)
	}
	defer c.Close() //nolint:errcheck // nothing is left in it
	request, answer := make([]byte, 100), make([]byte, 200)
	for i := range count {
		binary.BigEndian.PutUint32(request, uint32(i))
		if _, err := c.Write(request); err != nil {
			continue // refused
		}
		if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			return answered, err
		}
		if n, err := c.Read(answer); err == nil && bytes.Equal(answer[:n], request) {
			answered++
		}
		if ctx.Err() != nil {
			return answered, ctx.Err()
		}
	}
	return answered, nil
}

// Echo answers UDP datagrams with themselves, in both families, until ctx ends.
func Echo(ctx context.Context, pod *lab.Pod, port uint16) error {
	var c net.PacketConn
	err := pod.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, "udp", fmt.Sprintf("[::]:%d", port))
		return err
	})
	if err != nil {
		return fmt.Errorf("pod %s: listen: %w", pod.Name, err)
	}
	context.AfterFunc(ctx, func() { _ = c.Close() })
	go func() { // ends with ctx
		buf := make([]byte, 1<<16)
		for {
			n, peer, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], peer) // like what is lost on the way
		}
	}()
	return nil
}
