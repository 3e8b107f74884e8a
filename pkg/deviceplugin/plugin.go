package deviceplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

const (
	// DefaultKubeletDir is kubelet's --root-dir.
	DefaultKubeletDir = "/var/lib/kubelet"
	// DefaultPrefix is the part of a resource's name before the slash.
	DefaultPrefix = "offloadd.io"
)

// Options say what a Plugin offers, and to whom.
type Options struct {
	// KubeletDir is kubelet's --root-dir. It need not exist yet.
	KubeletDir string
	// Resources has the name of the resource by pool.
	Resources map[string]string

	// Snapshot tells what there is, as device.Inventory does.
	Snapshot func() device.Snapshot
	// RDMA is device.Inventory's. Nil: functions have no RDMA devices.
	RDMA func(device.Function) string
	// RDMANodes are the device nodes that a container gets with a VF, as device.Inventory knows them. Nil: none.
	RDMANodes func(device.Function) []string
	// Held returns the owners of functions by the names that they have asked for. After a change there has to be a Look.
	Held func() map[string]string
	// Ready is closed when it is known whose functions are.
	Ready <-chan struct{}

	// InfoDir is where files with device information go; "": where the Device Information Specification has them.
	InfoDir string
	Log     *slog.Logger
}

// A Plugin offers the functions of pools to kubelet.
type Plugin struct {
	Options
	bell bell // rings when something happens in kubelet's directory
	held bell // rings when Held may return something else
}

// New returns a Plugin that does nothing before Run.
func New(o Options) *Plugin {
	o.InfoDir = cmp.Or(o.InfoDir, infoDir)
	return &Plugin{Options: o, bell: newBell(), held: newBell()}
}

// Look says that Held may return something else.
func (p *Plugin) Look() { p.held.ring() }

const (
	registerTime = 5 * time.Second        // for kubelet to answer
	firstRetry   = 100 * time.Millisecond // after it has not; twice as long each time
	lastRetry    = 10 * time.Second
	// absence is how long a pool's device may be missing at the start before kubelet is told that there is nothing.
	absence = 2 * time.Second
)

// dir is where kubelet and plugins have their sockets.
func (p *Plugin) dir() string { return filepath.Join(p.KubeletDir, "device-plugins") }

// endpoint is the name of a pool's socket there.
func endpoint(pool string) string { return "offloadd-" + pool + ".sock" }

// maxSocket is the length of a unix socket's path, sizeof(sun_path) without the NUL.
const maxSocket = 107

// Check refuses a directory in which the sockets of pools cannot be, since their paths would be too long.
func Check(kubeletDir string, pools []device.Pool) error {
	for _, pool := range pools {
		p := Plugin{Options: Options{KubeletDir: kubeletDir}}
		if path := filepath.Join(p.dir(), endpoint(pool.Name)); len(path) > maxSocket {
			return fmt.Errorf("deviceplugin: %s has %d bytes, and the path of a socket at most %d: choose a shorter name for the pool", path, len(path), maxSocket)
		}
	}
	return nil
}

// Run offers the resources until ctx ends. Whatever goes wrong is tried again: kubelet comes and goes.
func (p *Plugin) Run(ctx context.Context) error {
	select {
	case <-p.Ready:
	case <-ctx.Done():
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
			err := p.watch(ctx)
			if ctx.Err() != nil {
				return nil
			}
			p.Log.Error("kubelet not watched", "dir", p.dir(), "err", err, "retry_in", pause)
			sleep(ctx, pause)
		}
	})
	for pool, resource := range p.Resources {
		g.Go(func() error {
			p.offer(ctx, pool, resource)
			return nil
		})
	}
	return g.Wait()
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// offer serves a resource, and registers it with each kubelet that comes.
func (p *Plugin) offer(ctx context.Context, pool, resource string) {
	if !p.known(ctx, pool) {
		return
	}
	r := &server{plugin: p, pool: pool, resource: resource}
	r.forgetInfo()
	pause := firstRetry
	for ctx.Err() == nil {
		rung := p.bell.wait() // before looking
		kubelet, ok := identify(filepath.Join(p.dir(), "kubelet.sock"))
		if !ok {
			select {
			case <-rung:
			case <-ctx.Done():
			}
			continue
		}
		err := p.session(ctx, r, kubelet, &pause)
		if err != nil && ctx.Err() == nil {
			p.Log.Warn("resource not offered", "resource", resource, "err", err, "retry_in", pause)
			sleep(ctx, pause)
			pause = min(2*pause, lastRetry)
		}
	}
}

// known waits until the pool's device has been read, or is not there, and reports false if ctx ends first.
func (p *Plugin) known(ctx context.Context, pool string) bool {
	late := time.NewTimer(absence)
	defer late.Stop()
	for {
		s := p.Snapshot()
		why := reason.NotReady
		for _, ps := range s.Pools {
			if ps.Name == pool {
				why = ps.Reason
			}
		}
		if why != reason.NotReady && why != reason.DeviceNotFound {
			return true
		}
		select {
		case <-s.Changed:
		case <-late.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// session serves a resource to one kubelet. It returns nil when that kubelet is gone, or somebody has taken the socket away.
func (p *Plugin) session(ctx context.Context, r *server, kubelet file, pause *time.Duration) error {
	path := filepath.Join(p.dir(), endpoint(r.pool))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deviceplugin: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("deviceplugin: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then it may be another's
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	pluginapi.RegisterDevicePluginServer(s, r)
	var failed error
	served := make(chan struct{})
	go func() { // until Stop below
		defer close(served)
		failed = s.Serve(l)
	}()
	defer func() {
		s.Stop()
		<-served
	}()
	own, ok := identify(path)
	if !ok {
		return fmt.Errorf("deviceplugin: %s vanished at once", path)
	}
	rung := p.bell.wait()
	if err := p.register(ctx, r); err != nil {
		return err
	}
	*pause = firstRetry
	p.Log.Info("resource offered", "resource", r.resource, "pool", r.pool)
	for {
		select {
		case <-ctx.Done():
			if now, _ := identify(path); now == own {
				_ = os.Remove(path) // otherwise it is another's
			}
			return nil
		case <-served:
			return fmt.Errorf("deviceplugin: serve %s: %w", path, failed)
		case <-rung:
		}
		rung = p.bell.wait()
		if now, _ := identify(filepath.Join(p.dir(), "kubelet.sock")); now != kubelet {
			p.Log.Info("kubelet restarted or ended", "resource", r.resource)
			return nil
		}
		if now, _ := identify(path); now != own {
			p.Log.Info("socket was taken away", "resource", r.resource, "path", path)
			return nil
		}
	}
}

// register tells kubelet of a resource.
func (p *Plugin) register(ctx context.Context, r *server) error {
	conn, err := dial(filepath.Join(p.dir(), "kubelet.sock"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, registerTime)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: endpoint(r.pool), ResourceName: r.resource, Options: options(),
	})
	if err != nil {
		return fmt.Errorf("deviceplugin register %s: %w", r.resource, err)
	}
	return nil
}

func dial(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("deviceplugin %s: %w", socket, err)
	}
	return conn, nil
}

// A file tells a file from another that was there before under the same name, even if that had the same inode.
type file struct {
	dev, ino uint64
	changed  unix.Timespec
}

// identify returns what is at a path; false if there is nothing.
func identify(path string) (file, bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return file{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return file{}, false
	}
	return file{st.Dev, st.Ino, unix.Timespec(st.Ctim)}, true
}
