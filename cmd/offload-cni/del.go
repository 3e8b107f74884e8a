package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"google.golang.org/grpc"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// del removes the container's port, and then releases its addresses: nobody else may get them before. What does not exist
// is removed. While the daemon is away it cannot know whether there is something to remove, so the runtime has to come
// again.
func del(ctx context.Context, r *request) error {
	if err := r.delete(ctx, r.key()); err != nil {
		return err
	}
	r.forgetDevice()
	if r.conf.IPAMType == "" {
		return nil
	}
	return r.release(ctx)
}

func (r *request) delete(ctx context.Context, key *offloadv1.PortKey) error {
	return r.call(ctx, patience, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := offloadv1.NewPortServiceClient(conn).DeletePort(ctx, &offloadv1.DeletePortRequest{Key: key, RequestId: r.id})
		return err
	})
}

// gc removes the ports of this network that belong to no attachment the runtime knows of. It goes on when one cannot be
// removed, and says so at the end. If the runtime does not say which attachments are valid, nothing is removed.
func gc(ctx context.Context, r *request) error {
	valid, known, err := attachments(r.StdinData)
	if err != nil || !known {
		return err
	}
	keys, err := r.keys(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, key := range keys {
		if slices.Contains(valid, types.GCAttachment{ContainerID: key.GetContainerId(), IfName: key.GetIfname()}) {
			continue
		}
		if err := r.delete(ctx, key); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", key.GetContainerId(), key.GetIfname(), err))
		}
	}
	if r.conf.IPAMType != "" {
		errs = append(errs, r.ipamError(invoke.DelegateGC(ctx, r.conf.IPAMType, r.StdinData, nil)))
	}
	return all(errs...)
}

// keys lists the ports of the network.
func (r *request) keys(ctx context.Context) (keys []*offloadv1.PortKey, err error) {
	req := &offloadv1.ListPortsRequest{Filter: &offloadv1.PortFilter{Network: r.conf.Name}}
	for {
		var resp *offloadv1.ListPortsResponse
		err := r.call(ctx, patience, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			resp, err = offloadv1.NewPortServiceClient(conn).ListPorts(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, p := range resp.GetPorts() {
			keys = append(keys, p.GetSpec().GetKey())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return keys, nil
		}
	}
}
