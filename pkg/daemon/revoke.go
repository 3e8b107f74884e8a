package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/specialize"
)

// revokeAgain is when blocked connections are looked for a second time after a change: the first packet that Open vSwitch sees after
// it is what makes a connection blocked. Changes that come meanwhile wait for that: to look is to have the kernel go through all connections
// of the node, and ports may come and go all the time.
const revokeAgain = 2 * time.Second

// revocation takes blocked connections from NICs. It does nothing as long as there is no NIC.
type revocation struct {
	mu      sync.Mutex
	zones   map[uint16]struct{} // where chains look connections up
	revoker *apply.Revoker      // nil before there was a NIC
	looks   twice
}

// look is called when filters have changed; nic says that there is a device that has them in hardware.
func (r *revocation) look(ctx context.Context, o *offload, program *specialize.Program, nic bool) {
	if r.revoker == nil && !nic {
		return
	}
	zones := map[uint16]struct{}{}
	for _, s := range program.States {
		if s.Tracked {
			zones[s.Zone] = struct{}{}
		}
	}
	r.mu.Lock()
	r.zones = zones
	r.mu.Unlock()
	if r.revoker == nil {
		r.revoker = apply.NewRevoker(o.log, r.has)
		r.looks.do = r.revoker.Look
		go func() { _ = r.revoker.Run(ctx) }() // ends with ctx, without an error
		return
	}
	r.looks.now()
}

// A twice does something when it is told so, and again after revokeAgain. What it is told meanwhile it does then, and once more later.
type twice struct {
	do func()

	mu            sync.Mutex
	waiting, told bool
}

func (t *twice) now() {
	t.mu.Lock()
	t.told = t.waiting
	first := !t.waiting
	t.waiting = true
	t.mu.Unlock()
	if first {
		t.do()
		time.AfterFunc(revokeAgain, t.again)
	}
}

func (t *twice) again() {
	t.do()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting = t.told; t.waiting {
		t.told = false
		time.AfterFunc(revokeAgain, t.again)
	}
}

func (r *revocation) has(zone uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, has := r.zones[zone]
	return has
}
