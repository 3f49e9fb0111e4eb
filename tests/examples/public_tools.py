"""Public programs: clusters, ratings, boxes, numerics, and what training scripts print."""

# The programs are kept as they were written.
# ruff: noqa: E713, F841, UP032, UP034
from __future__ import annotations

import copy
import logging
import os
import random
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
from public_harness import Program


def training_misc(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    out = []

    def set_seed(seed=42):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.cuda.manual_seed(seed)
        torch.cuda.manual_seed_all(seed)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        os.environ["PYTHONHASHSEED"] = str(seed)

    set_seed()
    a = torch._m.randn(2)
    set_seed()
    out.append(bool((a == torch._m.randn(2)).all()))
    st = torch.get_rng_state()
    b = torch._m.rand(2)
    torch.set_rng_state(st)
    out.append(torch.equal(b, torch._m.rand(2)))
    with torch.random.fork_rng():
        torch._m.rand(3)
    net = torch.fill(
        nn.Sequential(
            OrderedDict(fc1=nn.Linear(4, 6), act=nn.ReLU(), bn=nn.BatchNorm1d(6), drop=nn.Dropout(0.0), fc2=nn.Linear(6, 3))
        )
    )
    total = sum(p.numel() for p in net.parameters())
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    print(f"{total:,} total, {trainable:,} trainable, {total * 4 / 1024**2:.6f} MB")
    print(
        "{:<20} {:>10}".format("Layer", "Params"),
        *["{:<20} {:>10} {}".format(n, p.numel(), list(p.shape)) for n, p in net.named_parameters()],
        sep="\n",
    )
    for n, p in net.named_parameters():
        if n.startswith("fc1"):
            p.requires_grad_(False)
    opt = torch.optim.AdamW((p for p in net.parameters() if p.requires_grad), lr=1e-2, eps=1e-6)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, epochs=2, steps_per_epoch=3, anneal_strategy="linear")
    hist = defaultdict(list)
    best = float("inf")
    x, y = torch.randn(12, 4), torch.randint(0, 3, (12,))
    ds = list(zip(x, y))
    ema = {n: p.detach().clone() for n, p in net.named_parameters()}

    @torch.compile
    def step(xb, yb):
        logits = net(xb)
        loss = F.cross_entropy(logits, yb, reduction="none")
        k = loss.topk(2).values.mean()
        l1 = sum(p.abs().sum() for p in net.parameters())
        ent = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        loss = k + 1e-4 * l1 - 0.01 * ent
        loss.backward()
        gn = torch.sqrt(sum(p.grad.pow(2).sum() for p in net.parameters() if p.grad is not None))
        opt.step()
        opt.zero_grad()
        return loss, gn, (logits.argmax(-1) == yb).float().mean()

    for epoch in range(2):
        net.train()
        run = torch.zeros(())
        n = 0
        for xb, yb in torch.utils.data.DataLoader(ds, batch_size=4, shuffle=False):
            l, gn, acc = step(xb, yb)
            sched.step()
            run += l.detach() * xb.size(0)
            n += xb.size(0)
            hist["loss"].append(l.item())
            hist["lr"].append(sched.get_last_lr()[0])
            hist["gn"].append(float(gn))
            with torch.no_grad():
                for nme, p in net.named_parameters():
                    ema[nme].lerp_(p, 0.1) if p.dtype.is_floating_point else None
        avg = (run / n).item()
        is_best = avg < best
        best = min(avg, best)
        print(f"[{epoch + 1:>2}/{2}] loss={avg:.4f}{'*' if is_best else ''} acc={acc:.1%} lr={hist['lr'][-1]:.2e} gn={gn:.3f}")
        net.eval()
        cm = torch.zeros(3, 3, dtype=torch.int64)
        with torch.inference_mode():
            pred = net(x).argmax(1)
            [cm.__setitem__((t, p), cm[t, p] + 1) for t, p in zip(y.view(-1), pred.view(-1))]
            tp = cm.diag()
            prec = tp / cm.sum(0).clamp(min=1)
            rec = tp.float() / cm.sum(1)
            f1 = 2 * prec * rec / (prec + rec + 1e-8)
    out += [hist["loss"], hist["lr"], hist["gn"], cm, f1, ema["fc2.weight"], net.fc1.weight.grad, cm.sum() == len(x)]
    print(cm, cm.tolist(), f1.mean().item() >= 0, np.array(cm).sum(), cm.float().numpy().dtype)
    net.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    back = {k: v.cpu().numpy().copy() for k, v in net.state_dict().items()}
    net.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in back.items()})
    net2 = type(net)(*copy.deepcopy(list(net)))
    out.append(all(torch.equal(p, q) for p, q in zip(net.parameters(), net2.parameters())))
    dev = next(net.parameters()).device
    print(dev, dev.type, str(dev) == "cpu", net.fc1, net._modules.keys(), net[0].weight.data_ptr() == net.fc1.weight.data_ptr())
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.ReLU):
            parent = net.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.GELU())
    print(net)
    feats = nn.Sequential(*list(net.children())[:-1])
    out += [feats(x).shape, [type(m).__name__ for m in net.modules()]]
    frozen = [n for n, p in net.named_parameters() if not p.requires_grad]
    print(frozen)
    logging.getLogger().debug("x %s", x)
    return out


def kmeans_pca(torch: Any) -> list[Any]:
    r = np.random.RandomState(0)
    X = torch.from_numpy(np.concatenate([r.randn(20, 5) + 4, r.randn(20, 5) - 4, r.randn(20, 5)])).float()
    idx = torch.tensor([0, 25, 50])
    C = X[idx].clone()
    out = []
    for i in range(4):
        d = torch.cdist(X, C)
        a = d.argmin(dim=1)
        newC = torch.stack([X[a == k].mean(0) for k in range(3)])
        shift = torch.sum(torch.sqrt(torch.sum((newC - C) ** 2, dim=1)))
        C = newC
        print(f"iter {i} shift {shift**2:0.6f}, counts {torch.bincount(a).tolist()}, {a.unique(return_counts=True)[1]}")
        if shift**2 < 1e-4:
            break
    inertia = (X - C[a]).pow(2).sum()
    c2 = torch.zeros(3, 5).scatter_add_(0, a[:, None].repeat(1, 5), X) / torch.bincount(a, minlength=3).unsqueeze(1).type_as(X)
    torch.manual_seed(0)
    U, S, V = torch.svd_lowrank(X, q=3, niter=4)
    U2, S2, V2 = torch.pca_lowrank(X, q=3)
    Xc = X - X.mean(0)
    _, s, vh = torch.linalg.svd(Xc, full_matrices=False)
    ev, evec = torch.linalg.eigh(Xc.T @ Xc / (len(X) - 1))
    cov = torch.cov(X.T)
    cc = torch.corrcoef(X.T)
    proj = (Xc @ vh[:2].T).abs()
    W = torch.linalg.lstsq(torch.cat([X, torch.ones(len(X), 1)], 1), a.float().unsqueeze(1)).solution
    q = torch.quantile(X, torch.tensor([0.25, 0.5, 0.75]), dim=0)
    z = (X - X.mean(0, keepdim=True)) / X.std(0, keepdim=True)
    knn = torch.cdist(X, X).topk(4, largest=False).indices[:, 1:]
    vote = torch.mode(a[knn], dim=1)[0]
    hist = torch.histc(X, bins=5, min=-6, max=6)
    h2 = torch.histogram(X.flatten(), bins=4, range=(-8.0, 8.0))
    P = torch.softmax(-(torch.cdist(X, X) ** 2), 1).fill_diagonal_(0)
    perm = s.argsort(descending=True)
    print(S.shape, S2.shape, (vote == a).float().mean(), hist, h2)
    return [
        inertia,
        c2,
        s,
        ev,
        cov,
        cc,
        proj,
        W,
        q,
        z,
        hist,
        P.sum(),
        perm,
        torch.linalg.matrix_rank(X),
        torch.linalg.cond(Xc.T @ Xc),
        torch.trace(cov),
        C.sort(0)[0],
    ]


def rec_sys(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional

    class NCF(nn.Module):
        def __init__(self, u, i, d=6):
            super().__init__()
            self.eu, self.ei = nn.Embedding(u, d), nn.Embedding(i, d, sparse=False)
            self.bu, self.bi = nn.Embedding(u, 1), nn.Embedding(i, 1)
            [nn.init.normal_(e.weight, std=0.01) for e in (self.eu, self.ei)]
            self.mlp = nn.Sequential(nn.Linear(2 * d, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
            self.register_buffer("mu", torch.tensor(3.5))

        def forward(self, u, i):
            eu, ei = self.eu(u), self.ei(i)
            return (
                (eu * ei).sum(1)
                + self.bu(u).squeeze()
                + self.bi(i).squeeze()
                + self.mu
                + self.mlp(torch.cat([eu, ei], -1)).squeeze(-1)
            )

    class FM(nn.Module):
        def __init__(self, fields, d=4):
            super().__init__()
            self.emb = nn.EmbeddingBag(sum(fields), d, mode="sum")
            self.lin = nn.Embedding(sum(fields), 1)
            self.bias = nn.Parameter(torch.zeros((1,)))
            self.offsets = np.array((0, *np.cumsum(fields)[:-1]), dtype=np.int64)

        def forward(self, x):
            x = x + x.new_tensor(self.offsets).unsqueeze(0)
            e = F.embedding(x, self.emb.weight)
            s = 0.5 * (e.sum(1) ** 2 - (e**2).sum(1)).sum(1)
            return torch.sigmoid(self.bias + self.lin(x).sum(1).squeeze(1) + s)

    r = np.random.RandomState(0)
    df = dict(u=r.randint(0, 7, 40), i=r.randint(0, 9, 40), y=r.randint(1, 6, 40).astype(np.float64))
    net = torch.fill(NCF(7, 9))
    opt = torch.optim.Adam(
        [
            {"params": [p for n, p in net.named_parameters() if "b" in n.split(".")[0]], "weight_decay": 0.0},
            {"params": [p for n, p in net.named_parameters() if not "b" in n.split(".")[0]], "weight_decay": 1e-3},
        ],
        lr=0.05,
    )
    u, i, y = (torch.as_tensor(v) for v in df.values())
    y = y.float()
    out = []

    @torch.compile
    def step():
        opt.zero_grad(set_to_none=False)
        p = net(u, i)
        l = F.mse_loss(p, y)
        l.backward()
        opt.step()
        return l, p

    for _ in range(4):
        l, p = step()
        out.append(l)
    rmse = torch.sqrt(l).item()
    print(f"RMSE {rmse:.4f}", net.eu.weight.grad.abs().sum(1).gt(0).tolist())
    fm = torch.fill(FM([3, 4]))
    x = torch.from_numpy(np.stack([r.randint(0, 3, 10), r.randint(0, 4, 10)], 1))
    t = torch.from_numpy((r.rand(10) > 0.5)).float()
    o = fm(x)
    F.binary_cross_entropy(o, t).backward()
    out += [o, fm.emb.weight.grad]
    R = torch.zeros(7, 9)
    R[u, i] = y
    R2 = torch.zeros(7, 9).index_put_((u, i), y, accumulate=True)
    cnt = torch.zeros(7, 9).index_put((u, i), torch.ones(40), accumulate=True)
    U, S, Vh = torch.linalg.svd(R2 / cnt.clamp(min=1))
    low = U[:, :3] * S[:3] @ Vh[:3]
    sim = F.cosine_similarity(R2[:, None, :], R2[None, :, :], dim=-1)
    tk = sim.fill_diagonal_(-1).topk(2)
    pos, negs = net(u[:5], i[:5]), net(u[:5], (i[:5] + 1) % 9)
    bpr = -F.logsigmoid(pos - negs).mean()
    dcg = (1 / torch.log2(torch.arange(2.0, 7.0))).cumsum(0)
    w = torch.randn(3, 4, requires_grad=True)
    eb = nn.EmbeddingBag.from_pretrained(torch.arange(12.0).view(6, 2), mode="mean")
    out += [
        R2,
        low,
        tk.values,
        tk.indices,
        bpr,
        dcg,
        eb(torch.tensor([0, 1, 5, 3]), torch.tensor([0, 3])),
        eb(torch.tensor([[0, 1]])),
    ]
    return out


def detection_ops(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional

    def box_iou(b1, b2):
        def area(b):
            return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])

        lt, rb = torch.max(b1[:, None, :2], b2[:, :2]), torch.min(b1[:, None, 2:], b2[:, 2:])
        wh = (rb - lt).clamp(min=0)
        inter = wh[:, :, 0] * wh[:, :, 1]
        return inter / (area(b1)[:, None] + area(b2) - inter)

    def nms(boxes, scores, thr):
        x1, y1, x2, y2 = boxes.unbind(1)
        areas = (x2 - x1) * (y2 - y1)
        order = scores.sort(0, descending=True)[1]
        keep = []
        while order.numel() > 0:
            if order.numel() == 1:
                keep.append(order.item())
                break
            i = order[0].item()
            keep.append(i)
            xx1, yy1, xx2, yy2 = (
                x1[order[1:]].clamp(min=x1[i]),
                y1[order[1:]].clamp(min=y1[i].item()),
                x2[order[1:]].clamp(max=x2[i]),
                y2[order[1:]].clamp(max=float(y2[i])),
            )
            inter = (xx2 - xx1).clamp(min=0) * (yy2 - yy1).clamp(min=0)
            iou = inter / (areas[i] + areas[order[1:]] - inter)
            idx = (iou <= thr).nonzero().squeeze()
            if idx.numel() == 0:
                break
            order = order[idx + 1]
        return torch.LongTensor(keep)

    def encode(m, p, v):
        g = (m[:, :2] + m[:, 2:]) / 2 - p[:, :2]
        g /= v[0] * p[:, 2:]
        wh = (m[:, 2:] - m[:, :2]) / p[:, 2:]
        return torch.cat([g, torch.log(wh) / v[1]], 1)

    def decode(loc, p, v):
        b = torch.cat((p[:, :2] + loc[:, :2] * v[0] * p[:, 2:], p[:, 2:] * torch.exp(loc[:, 2:] * v[1])), 1)
        b[:, :2] -= b[:, 2:] / 2
        b[:, 2:] += b[:, :2]
        return b

    r = np.random.RandomState(0)
    c = torch.from_numpy(r.rand(12, 2)).float()
    wh = torch.from_numpy(r.rand(12, 2) * 0.3 + 0.1).float()
    pri = torch.cat([c, wh], 1)
    pt = torch.cat([c - wh / 2, c + wh / 2], 1)
    truths = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.4, 0.9, 0.8]])
    labels = torch.tensor([1, 2])
    ov = box_iou(truths, pt)
    bpo, bpi = ov.max(1, keepdim=True)
    bto, bti = ov.max(0, keepdim=True)
    bti.squeeze_(0)
    bto.squeeze_(0)
    bpi.squeeze_(1)
    bpo.squeeze_(1)
    bto.index_fill_(0, bpi, 2)
    for j in range(bpi.size(0)):
        bti[bpi[j]] = j
    matches = truths[bti]
    conf = labels[bti] + 0
    conf[bto < 0.3] = 0
    loc_t = encode(matches, pri, [0.1, 0.2])
    loc = (torch.randn(1, 12, 4) * 0.1).requires_grad_()
    cd = torch.randn(1, 12, 3).requires_grad_()
    pos = conf.unsqueeze(0) > 0
    pi = pos.unsqueeze(pos.dim()).expand_as(loc)
    ll = F.smooth_l1_loss(loc[pi].view(-1, 4), loc_t.unsqueeze(0)[pi].view(-1, 4), reduction="sum")
    bc = cd.view(-1, 3)
    lc = torch.logsumexp(bc, 1, keepdim=True) - bc.gather(1, conf.view(-1, 1))
    lc = lc.view(1, -1)
    lc[pos] = 0
    _, li = lc.sort(1, descending=True)
    _, ir = li.sort(1)
    npos = pos.long().sum(1, keepdim=True)
    nneg = torch.clamp(3 * npos, max=pos.size(1) - 1)
    neg = ir < nneg.expand_as(ir)
    pidx, nidx = pos.unsqueeze(2).expand_as(cd), neg.unsqueeze(2).expand_as(cd)
    cp = cd[(pidx + nidx).gt(0)].view(-1, 3)
    tw = conf.unsqueeze(0)[(pos + neg).gt(0)]
    lcc = F.cross_entropy(cp, tw, reduction="sum")
    N = npos.data.sum().double()
    ((ll.double() + lcc.double()) / N).backward()
    keep = nms(decode(loc.data.squeeze(0), pri, [0.1, 0.2]), F.softmax(cd.detach(), -1)[0, :, 1], 0.3)
    print(keep.tolist(), N, conf)
    grid_y, grid_x = torch.meshgrid([torch.arange(3), torch.arange(3)], indexing="ij")
    yolo = torch.randn(1, 2 * 6, 3, 3).view(1, 2, 6, 3, 3).permute(0, 1, 3, 4, 2).contiguous()
    px = torch.sigmoid(yolo[..., 0])
    pb = torch.FloatTensor(yolo[..., :4].shape).fill_(0) if False else torch.zeros(yolo[..., :4].shape)
    pb[..., 0] = px.data + grid_x
    pb[..., 2] = torch.exp(yolo.data[..., 2]) * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    mask = torch.BoolTensor(1, 2, 3, 3).fill_(0)
    mask[0, torch.tensor([1]), [2], torch.tensor([0])] = 1
    obj = F.binary_cross_entropy(torch.sigmoid(yolo[..., 4])[mask], torch.ones(1))
    return [ov, ll, lcc, loc.grad, cd.grad, keep, pb, obj, mask.sum(), bto, matches]


def numerics(torch: Any) -> list[Any]:
    F = torch.nn.functional
    r = np.random.RandomState(0)
    T = lambda *s: torch.from_numpy(r.randn(*s))

    def power(A, it=50):
        b = torch.ones(A.shape[1], dtype=A.dtype)
        [b := (A @ b) / torch.norm(A @ b) for _ in range(it)]
        return b @ A @ b

    A = T(5, 5)
    S = A @ A.T + torch.eye(5, dtype=torch.float64)
    out = [
        power(S),
        torch.linalg.eigvalsh(S),
        torch.linalg.solve(S, T(5)),
        torch.inverse(S) @ S,
        torch.det(S),
        torch.linalg.pinv(T(4, 3)).shape,
        torch.matrix_exp(A * 0.1),
        torch.linalg.matrix_power(A, 3),
        S.cholesky().diagonal(),
        torch.linalg.expm if False else 0,
    ]

    def cg(A, b, n=10):
        x = torch.zeros_like(b)
        rr = b - A @ x
        p = rr.clone()
        rs = rr @ rr
        for _ in range(n):
            Ap = A @ p
            al = rs / (p @ Ap)
            x += al * p
            rr -= al * Ap
            rn = rr @ rr
            if rn.sqrt() < 1e-10:
                break
            p = rr + (rn / rs) * p
            rs = rn
        return x

    b = T(5)
    out.append(cg(S, b))
    x = torch.tensor(1.5, requires_grad=True)
    steps = []
    while True:
        f = x**3 - 2
        (g,) = torch.autograd.grad(f, x)
        if abs(f.item()) < 1e-5 or len(steps) > 20:
            break
        with torch.no_grad():
            x -= f / g
        steps.append(x.item())
    out += steps
    img = torch.zeros(1, 1, 7, 7)
    img[..., 3, 3] = 1
    k = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]).div_(16.0)[None, None]
    blur = F.conv2d(F.pad(img, (1,) * 4, "reflect"), k)
    sob = F.conv2d(img, torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).expand(1, 1, 3, 3), padding=1)
    out += [blur, sob]
    life = torch.zeros(8, 8, dtype=torch.uint8)
    life[1, 2] = life[2, 3] = 1
    life[3, 1:4] = 1
    for _ in range(4):
        n = F.conv2d(F.pad(life[None, None].float(), (1, 1, 1, 1), mode="circular"), torch.ones(1, 1, 3, 3))[0, 0] - life
        life = ((n == 3) | ((life == 1) & (n == 2))).to(torch.uint8)
    print(life)
    u = torch.zeros(20)
    u[8:12] = 1.0
    for _ in range(10):
        u[1:-1] = u[1:-1] + 0.2 * (u[2:] - 2 * u[1:-1] + u[:-2])
    out.append(u)
    y, xx = np.ogrid[-1.3:1.3:12j, -2:1:15j]
    c = torch.complex(torch.from_numpy(xx + 0 * y).float(), torch.from_numpy(y + 0 * xx).float())
    z, ns = c.clone(), torch.zeros(c.shape)
    for _ in range(15):
        z = z * z + c
        nd = torch.abs(z) < 4.0
        ns += nd.type(torch.FloatTensor)
        z[~nd] = 0
    out.append(ns)
    perm = torch.from_numpy(r.permutation(6))
    inv = torch.empty_like(perm)
    inv[perm] = torch.arange(6)
    out += [inv[perm], torch.argsort(perm)]
    d = torch.full((4, 4), float("inf"))
    d.fill_diagonal_(0)
    d[0, 1] = 3
    d[1, 2] = 1
    d[2, 3] = 2
    d[0, 3] = 9
    for k in range(4):
        d = torch.minimum(d, d[:, k : k + 1] + d[k : k + 1, :])
    lu = torch.linalg.lu_factor(S)
    out += [
        d,
        torch.linalg.lu_solve(*lu, b[:, None]),
        torch.trapezoid(torch.linspace(0, 1, 11) ** 2, dx=0.1),
        torch.special.expit(T(2)),
        torch.polygamma(1, torch.tensor(2.0)),
        torch.erfinv(torch.tensor(0.5)),
        torch.vander(torch.tensor([1.0, 2.0, 3.0])),
        torch.cumulative_trapezoid(torch.arange(4.0)),
        torch.gradient(torch.tensor([1.0, 4.0, 9.0, 16.0]))[0],
        torch.logaddexp(torch.tensor(1.0), torch.tensor(2.0)),
        torch.bucketize(torch.tensor([3, 6, 9]), torch.tensor([1, 3, 5, 7, 9]), right=True),
        torch.nn.functional.interpolate(torch.arange(4.0)[None, None], size=7, mode="linear", align_corners=True),
        torch.sinc(torch.arange(3.0)),
        torch.heaviside(torch.tensor([-1.0, 0, 2]), torch.tensor([0.5])),
        torch.count_nonzero(life),
        torch.tensor([3, 5]).gcd(torch.tensor([9, 10])),
        torch.msort(T(3, 2)),
        torch.renorm(T(2, 3), 2, 0, 1.0),
        torch.cummax(T(5), 0),
        torch.rot90(life),
        torch.select(S, 0, 1),
        torch.take(S, torch.tensor([0, 7])),
        torch.atleast_2d(torch.tensor(1.0)),
        torch.float_power(torch.tensor([2]), 3),
        torch.ldexp(torch.tensor(1.0), torch.tensor([2])),
        torch.copysign(torch.tensor(2.0), torch.tensor(-1.0)),
        torch.xlogy(torch.tensor(0.0), torch.tensor(0.0)),
        torch.std_mean(S, dim=0),
        torch.aminmax(S),
        torch.broadcast_tensors(torch.ones(2, 1), torch.ones(3))[0].shape,
        torch.nanmean(torch.tensor([1.0, float("nan")])),
        torch.logcumsumexp(T(3), 0),
        torch.linalg.vander(torch.tensor([2.0, 3.0])),
        torch.signbit(torch.tensor([-0.0])),
        torch.flatten(S).histc(4),
    ]
    return out


PROGRAMS: dict[str, tuple[Program, float]] = {
    "training_misc": (training_misc, 0.002),
    "kmeans_pca": (kmeans_pca, 0.001),
    "rec_sys": (rec_sys, 0.001),
    "detection_ops": (detection_ops, 0.001),
    "numerics": (numerics, 0.001),
}
