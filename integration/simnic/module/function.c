// SPDX-License-Identifier: GPL-2.0
/* Scalable functions: the devlink port's side, and the auxiliary device with its driver, which makes the netdev. */
#include "simnic.h"

static DEFINE_IDA(sf_dev_ids);

/* simnic_function_add is what the driver of a function does: it makes the netdev, and the RDMA device if there is to be one. */
int simnic_function_add(struct simnic_vport *vport, struct device *dev)
{
	int err;

	err = simnic_end_add(vport, SIMNIC_FUNCTION, dev);
	if (err)
		return err;
	err = simnic_rdma_add(vport, dev);
	if (err)
		simnic_end_del(vport, SIMNIC_FUNCTION);
	return err;
}

void simnic_function_del(struct simnic_vport *vport)
{
	simnic_rdma_del(vport);
	simnic_end_del(vport, SIMNIC_FUNCTION);
}

struct simnic_sf_dev {
	struct auxiliary_device aux;
	struct simnic_vport *vport;
	u32 sfnum;
};

static struct simnic_sf_dev *to_sf_dev(struct device *dev)
{
	return container_of(dev, struct simnic_sf_dev, aux.dev);
}

static ssize_t sfnum_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", to_sf_dev(dev)->sfnum);
}
static DEVICE_ATTR_RO(sfnum);

static struct attribute *sf_dev_attrs[] = {
	&dev_attr_sfnum.attr,
	NULL
};
ATTRIBUTE_GROUPS(sf_dev);

static void sf_dev_release(struct device *dev)
{
	ida_free(&sf_dev_ids, to_sf_dev(dev)->aux.id);
	kfree(to_sf_dev(dev));
}

/* sf_attach is what firmware and the kernel do when a function was activated, at some later time: its device appears. */
static void sf_attach(struct work_struct *work)
{
	struct simnic_sf *sf = container_of(work, struct simnic_sf, attach.work);
	struct simnic_sf_dev *dev;
	int id;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return;
	id = ida_alloc(&sf_dev_ids, GFP_KERNEL);
	if (id < 0) {
		kfree(dev);
		return;
	}
	dev->vport = &sf->vport;
	dev->sfnum = sf->vport.number;
	dev->aux.name = "sf";
	dev->aux.id = id;
	dev->aux.dev.parent = sf->vport.nic->dev;
	dev->aux.dev.groups = sf_dev_groups;
	dev->aux.dev.release = sf_dev_release;
	if (auxiliary_device_init(&dev->aux)) {
		ida_free(&sf_dev_ids, id);
		kfree(dev);
		return;
	}
	if (auxiliary_device_add(&dev->aux)) {
		auxiliary_device_uninit(&dev->aux);
		return;
	}
	sf->dev = dev;
}

void simnic_sf_activate(struct simnic_sf *sf)
{
	sf->state = DEVLINK_PORT_FN_STATE_ACTIVE;
	queue_delayed_work(system_long_wq, &sf->attach, msecs_to_jiffies(READ_ONCE(sf->vport.nic->sf_delay_ms)));
}

void simnic_sf_deactivate(struct simnic_sf *sf)
{
	sf->state = DEVLINK_PORT_FN_STATE_INACTIVE;
	cancel_delayed_work_sync(&sf->attach);
	if (!sf->dev)
		return;
	auxiliary_device_delete(&sf->dev->aux);
	auxiliary_device_uninit(&sf->dev->aux);
	sf->dev = NULL;
}

int simnic_sf_new(struct simnic *nic, u32 sfnum, struct netlink_ext_ack *extack, struct simnic_sf **new)
{
	struct simnic_sf *sf;
	int err;

	list_for_each_entry(sf, &nic->sfs, list) {
		if (sf->vport.number == sfnum) {
			NL_SET_ERR_MSG_MOD(extack, "SF already exist. Choose different sfnum");
			return -EEXIST;
		}
	}
	sf = kzalloc(sizeof(*sf), GFP_KERNEL);
	if (!sf)
		return -ENOMEM;
	sf->slot = ida_alloc_max(&nic->sf_slots, SIMNIC_MAX_SFS - 1, GFP_KERNEL);
	if (sf->slot < 0) {
		err = sf->slot;
		goto free;
	}
	INIT_DELAYED_WORK(&sf->attach, sf_attach);
	simnic_vport_init(&sf->vport, nic, SIMNIC_SF, sfnum, SIMNIC_PORT_SF(sf->slot));
	err = simnic_representor_add(&sf->vport);
	if (err)
		goto slot;
	list_add_tail(&sf->list, &nic->sfs);
	*new = sf;
	return 0;
slot:
	ida_free(&nic->sf_slots, sf->slot);
free:
	kfree(sf);
	return err;
}

void simnic_sf_del(struct simnic_sf *sf)
{
	simnic_sf_deactivate(sf);
	simnic_representor_del(&sf->vport);
	list_del(&sf->list);
	ida_free(&sf->vport.nic->sf_slots, sf->slot);
	kfree(sf);
}

static int sf_probe(struct auxiliary_device *aux, const struct auxiliary_device_id *id)
{
	return simnic_function_add(to_sf_dev(&aux->dev)->vport, &aux->dev);
}

static void sf_remove(struct auxiliary_device *aux)
{
	simnic_function_del(to_sf_dev(&aux->dev)->vport);
}

static const struct auxiliary_device_id sf_ids[] = {
	{ .name = KBUILD_MODNAME ".sf" },
	{}
};
MODULE_DEVICE_TABLE(auxiliary, sf_ids);

struct auxiliary_driver simnic_sf_driver = {
	.name = "sf",
	.probe = sf_probe,
	.remove = sf_remove,
	.id_table = sf_ids,
};
