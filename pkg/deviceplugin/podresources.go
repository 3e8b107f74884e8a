package deviceplugin

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// An Allocation is what kubelet has given to a container.
type Allocation struct {
	Namespace, Pod, Container string
	Resource                  string
	ID                        string
}

// Holder is whose it is, NAMESPACE/POD/CONTAINER.
func (a Allocation) Holder() string { return a.Namespace + "/" + a.Pod + "/" + a.Container }

// answerTime is how long kubelet may take to tell what it has given away.
const answerTime = 5 * time.Second

// Allocations asks kubelet what of some resources it has given to containers.
func Allocations(ctx context.Context, kubeletDir string, resources map[string]bool) ([]Allocation, error) {
	conn, err := dial(filepath.Join(kubeletDir, "pod-resources", "kubelet.sock"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	answer, err := podresources.NewPodResourcesListerClient(conn).List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("deviceplugin: kubelet's pod resources: %w", err)
	}
	var all []Allocation
	for _, pod := range answer.GetPodResources() {
		for _, c := range pod.GetContainers() {
			for _, d := range c.GetDevices() {
				if !resources[d.GetResourceName()] {
					continue
				}
				for _, id := range d.GetDeviceIds() {
					all = append(all, Allocation{pod.GetNamespace(), pod.GetName(), c.GetName(), d.GetResourceName(), id})
				}
			}
		}
	}
	return all, nil
}
