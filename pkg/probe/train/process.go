package train

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/offloadd/offloadd/pkg/probe/child"
)

// Verb is the only argument of the process. Its main is
//
//	if len(os.Args) == 2 && os.Args[1] == train.Verb {
//		os.Exit(train.Main(os.Stdin, os.Stdout))
//	}
//
// in each program that calls Start, before anything else.
const Verb = "probe-train"

// maxEvent bounds a line in octets: two times of twenty digits for each packet.
const maxEvent = 2*21*MaxPackets + 4096

// A Process sends trains, and answers them. Its methods may be called from many goroutines.
type Process struct {
	p    *child.Process
	to   End
	done chan struct{} // closed when it has ended

	mu     sync.Mutex // guards what follows, and what is written to the process
	runs   map[uint32]*Run
	last   uint32
	failed error // why it has ended
}

// A Run is a train on its way.
type Run struct {
	process  *Process
	id       uint32
	begun    chan struct{} // closed when it is on its way
	answered chan int64    // has when the first answer came
	ended    chan struct{} // closed when there is a report, or an error
	report   Report
	err      error
}

// Start starts the process, and returns when the end answers. Whoever gets a Process must Close it.
func Start(ctx context.Context, answer End) (*Process, error) {
	p, err := child.Start(Verb)
	if err != nil {
		return nil, err
	}
	t := &Process{p: p, to: answer, done: make(chan struct{}), runs: map[uint32]*Run{}}
	begun := make(chan struct{}, 1)
	// It ends with the process.
	go t.read(begun)
	err = t.order(order{Answer: &answer})
	if err == nil {
		select {
		case <-begun:
			return t, nil
		case <-t.done:
			err = t.failed
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	t.Close()
	return nil, err
}

func (t *Process) order(o order) error {
	line, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.p.In.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

// read takes what the process says until it says no more.
func (t *Process) read(begun chan<- struct{}) {
	lines := bufio.NewScanner(t.p.Out)
	lines.Buffer(nil, maxEvent)
	var err error
	for err == nil && lines.Scan() {
		var e event
		if err = json.Unmarshal(lines.Bytes(), &e); err != nil {
			err = fmt.Errorf("train: %w", err)
			break
		}
		if e.ID == 0 {
			if e.Error != "" {
				err = errors.New(e.Error)
			} else if e.Begun {
				begun <- struct{}{}
			}
			continue
		}
		t.tell(e)
	}
	if err == nil {
		err = lines.Err()
	}
	if err == nil {
		err = errors.New("train: the process has ended")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
	for _, r := range t.runs {
		r.err = err
		close(r.ended)
	}
	clear(t.runs)
	close(t.done)
}

// tell passes on what is said of a train.
func (t *Process) tell(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.runs[e.ID]
	switch {
	case r == nil:
	case e.Begun:
		close(r.begun)
	case e.Answered != 0:
		r.answered <- e.Answered
	default:
		if e.Report != nil {
			r.report = *e.Report
		}
		if e.Error != "" {
			r.err = errors.New(e.Error)
		}
		close(r.ended)
		delete(t.runs, e.ID)
	}
}

// Send sends a train, whose number is given here, and returns when it is on its way.
func (t *Process) Send(ctx context.Context, train Train) (*Run, error) {
	r := &Run{process: t, begun: make(chan struct{}), answered: make(chan int64, 1), ended: make(chan struct{})}
	t.mu.Lock()
	if t.failed != nil {
		t.mu.Unlock()
		return nil, t.failed
	}
	t.last++
	r.id, train.ID = t.last, t.last
	err := train.Check(t.to.At)
	if err == nil {
		t.runs[r.id] = r
	}
	t.mu.Unlock()
	if err == nil {
		err = t.order(order{Start: &train})
	}
	if err != nil {
		return nil, err
	}
	select {
	case <-r.begun:
		return r, nil
	case <-r.ended:
		return nil, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Answered has when the first answer came, once.
func (r *Run) Answered() <-chan int64 { return r.answered }

// Stop ends the train, and returns what has become of it. It is called once.
func (r *Run) Stop(ctx context.Context) (Report, error) {
	if err := r.process.order(order{Stop: r.id}); err != nil {
		return Report{}, err
	}
	select {
	case <-r.ended:
		return r.report, r.err
	case <-ctx.Done():
		return Report{}, context.Cause(ctx)
	}
}

// Close ends the process.
func (t *Process) Close() {
	t.p.Kill()
	<-t.done
	_ = t.p.Close() // it was killed
}
