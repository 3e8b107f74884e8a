package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const (
	// maxRequest bounds a request, in bytes; the largest valid one is a tenth of it.
	maxRequest = 1 << 20
	// maxStreams bounds the calls that one connection has at a time.
	maxStreams = 256
	// stopGrace is how long calls may go on when the server is to stop.
	stopGrace = 5 * time.Second
)

// A Server serves the API.
type Server struct {
	log    *slog.Logger
	grpc   *grpc.Server
	health *health.Server

	stopping context.Context // ends when the server begins to stop
	stop     context.CancelFunc

	mu        sync.Mutex // guards what follows
	subsystem map[Subsystem]Health
}

// NewServer returns a server of what is behind the seams. Services of a seam that is nil are not served.
func NewServer(p Ports, n Node, f Flows, d Devices, pr Probe, m Monitor, log *slog.Logger) *Server {
	s := &Server{
		log:       log,
		health:    health.NewServer(),
		subsystem: map[Subsystem]Health{},
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.UnknownServiceHandler(unknown),
		grpc.WaitForHandlers(true),
	)
	if p != nil {
		offloadv1.RegisterPortServiceServer(s.grpc, &portService{ports: p, heartbeat: heartbeat})
	}
	if n != nil {
		offloadv1.RegisterNodeServiceServer(s.grpc, &nodeService{node: n, health: s.Health, monitor: m})
	}
	if f != nil {
		offloadv1.RegisterFlowServiceServer(s.grpc, &flowService{flows: f})
	}
	if d != nil {
		offloadv1.RegisterDeviceServiceServer(s.grpc, newDeviceService(d))
	}
	if pr != nil {
		offloadv1.RegisterProbeServiceServer(s.grpc, &probeService{probe: pr})
	}
	if m != nil {
		offloadv1.RegisterMonitorServiceServer(s.grpc, &monitorService{monitor: m, heartbeat: heartbeat})
	}
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	for _, name := range Subsystems() {
		s.SetHealth(Health{Subsystem: name, Reason: reason.NotReady, Message: "the daemon has just started"})
	}
	return s
}

// SetHealth says how a subsystem is; h.Since is ignored. It may be called from any goroutine, also without a change.
func (s *Server) SetHealth(h Health) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.subsystem[h.Subsystem]
	h.Since = old.Since
	if !known || (old.Reason == "") != (h.Reason == "") {
		h.Since = time.Now()
	}
	s.subsystem[h.Subsystem] = h
	if known && old.Reason == h.Reason {
		return
	}
	all := true
	for _, h := range s.subsystem {
		all = all && !ails(h.Reason)
	}
	s.health.SetServingStatus(string(h.Subsystem), serving(h.Reason == ""))
	s.health.SetServingStatus("", serving(all))
}

// ails reports whether containers suffer from what a reason says. A filter that a NIC refuses is none: packets take the path in software, and whoever restarted
// the daemon for it would gain nothing.
func ails(r reason.Reason) bool {
	entry, known := reason.Find(r)
	return r != "" && (!known || entry.Status != 0)
}

func serving(ok bool) healthv1.HealthCheckResponse_ServingStatus {
	if ok {
		return healthv1.HealthCheckResponse_SERVING
	}
	return healthv1.HealthCheckResponse_NOT_SERVING
}

// Health returns how the subsystems are, ordered by name.
func (s *Server) Health() []Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Health, 0, len(s.subsystem))
	for _, name := range Subsystems() {
		all = append(all, s.subsystem[name])
	}
	return all
}

// Serve serves on l, which it closes, until ctx ends. Then streams end at once, and other calls have stopGrace.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	done := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(done)
		s.health.Shutdown()
		s.stop()
		late := time.AfterFunc(stopGrace, s.grpc.Stop)
		defer late.Stop()
		s.grpc.GracefulStop()
	})()
	err := s.grpc.Serve(l)
	if ctx.Err() != nil {
		<-done
		return nil
	}
	s.stop()
	s.grpc.Stop()
	return fmt.Errorf("api serve: %w", err)
}
