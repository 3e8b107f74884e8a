// SPDX-License-Identifier: GPL-2.0
/*
 * RDMA devices of functions, as far as they can be seen, and moved to another network namespace: there is no traffic, and no verbs for
 * programs.
 */
#include <rdma/ib_verbs.h>
#include "simnic.h"

struct simnic_rdma {
	struct ib_device ib;
};

static int query_device(struct ib_device *ib, struct ib_device_attr *attr, struct ib_udata *udata)
{
	memset(attr, 0, sizeof(*attr));
	return 0;
}

static int query_port(struct ib_device *ib, u32 port, struct ib_port_attr *attr)
{
	attr->state = IB_PORT_ACTIVE;
	attr->phys_state = IB_PORT_PHYS_STATE_LINK_UP;
	attr->max_mtu = IB_MTU_4096;
	attr->active_mtu = IB_MTU_1024;
	attr->active_width = IB_WIDTH_4X;
	attr->active_speed = IB_SPEED_EDR;
	return 0;
}

static int get_port_immutable(struct ib_device *ib, u32 port, struct ib_port_immutable *immutable)
{
	immutable->core_cap_flags = RDMA_CORE_PORT_RAW_PACKET;
	return 0;
}

static enum rdma_link_layer get_link_layer(struct ib_device *ib, u32 port)
{
	return IB_LINK_LAYER_ETHERNET;
}

/* Without this the kernel moves no device: nobody must use it then. */
static void disassociate_ucontext(struct ib_ucontext *context)
{
}

static const struct ib_device_ops ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_UNKNOWN,
	.uverbs_abi_ver = 1,
	.query_device = query_device,
	.query_port = query_port,
	.get_port_immutable = get_port_immutable,
	.get_link_layer = get_link_layer,
	.disassociate_ucontext = disassociate_ucontext,
};

/* simnic_rdma_add makes the RDMA device of a function whose driver is bound to parent, if functions have some. */
int simnic_rdma_add(struct simnic_vport *vport, struct device *parent)
{
	struct simnic_rdma *rdma;
	char name[IB_DEVICE_NAME_MAX];
	int err;

	if (!READ_ONCE(vport->nic->rdma))
		return 0;
	rdma = ib_alloc_device(simnic_rdma, ib);
	if (!rdma)
		return -ENOMEM;
	rdma->ib.phys_port_cnt = 1;
	rdma->ib.num_comp_vectors = 1;
	rdma->ib.node_type = RDMA_NODE_IB_CA;
	rdma->ib.dev.parent = parent;
	ib_set_device_ops(&rdma->ib, &ops);
	snprintf(name, sizeof(name), "sn%u%c%u", vport->nic->id, vport->kind == SIMNIC_VF ? 'v' : 's', vport->number);
	err = ib_register_device(&rdma->ib, name, NULL);
	if (err) {
		ib_dealloc_device(&rdma->ib);
		return err;
	}
	vport->rdma = rdma;
	return 0;
}

/* simnic_rdma_del removes it, wherever it has been moved to. */
void simnic_rdma_del(struct simnic_vport *vport)
{
	if (!vport->rdma)
		return;
	ib_unregister_device(&vport->rdma->ib);
	ib_dealloc_device(&vport->rdma->ib);
	vport->rdma = NULL;
}
