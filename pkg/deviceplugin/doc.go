// Package deviceplugin offers the functions of pools to kubelet, by its device plugin API v1beta1, and asks kubelet what it has given to pods.
//
// Each pool is a resource of its own. A VF is named as sysfs names it; an SF may not exist before a pod needs it, so that kubelet counts the
// slots of its pool. Kubelet learns of each change when it happens. It never says that a pod has given something back: who has a function
// package device knows, and where the two differ an audit tells.
//
// See https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/.
package deviceplugin
