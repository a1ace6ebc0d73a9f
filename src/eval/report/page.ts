/** Style and behaviour of the HTML report. */

export const pageStyle = `
:root{--fg:#1b2126;--dim:#65717c;--line:#dfe5ea;--bg:#fff;--card:#f6f8fa;--bar:#2f7d6d;--bad:#b3423a;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--fg:#e6ebef;--dim:#93a0ab;--line:#2d363e;--bg:#14191d;--card:#1c2328;--bar:#4fae99;--bad:#e07a72}}
*{box-sizing:border-box}body{margin:0 auto;max-width:62rem;padding:2rem 1.25rem 4rem;font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg)}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:2.25rem 0 .6rem}header p,.hint{margin:.2rem 0;color:var(--dim)}.note{color:var(--bad)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th{font-weight:500;color:var(--dim)}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line)}th:first-child,td:first-child,th:nth-child(3),td:nth-child(3){text-align:left}small{color:var(--dim)}
.chart{columns:2;column-gap:2rem}@media(max-width:45rem){.chart{columns:1}}
.bar{display:grid;grid-template-columns:11rem 1fr 3rem;gap:.6rem;align-items:center;break-inside:avoid;font-size:13px}.bar span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.bar i{position:relative;height:.7rem;background:var(--card);border-radius:3px}.bar u{position:absolute;inset:0 auto 0 0;background:var(--bar);border-radius:3px}
.bar s{position:absolute;top:50%;height:2px;margin-top:-1px;background:var(--fg);opacity:.55}.bar b{font-weight:500;text-align:right;font-variant-numeric:tabular-nums}
nav{display:flex;gap:.5rem;margin:.6rem 0;flex-wrap:wrap}select,input{max-width:100%;font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:5px;padding:.3rem .5rem}input{flex:1;min-width:10rem}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0}summary{cursor:pointer;padding:.45rem .7rem;display:flex;gap:.7rem;align-items:baseline}
summary em{font-style:normal;color:var(--dim);min-width:3rem}summary .ok{color:var(--bar)}summary .no{color:var(--bad)}summary span:last-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
details>div{padding:.2rem .7rem .8rem}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--card);border-radius:5px;padding:.6rem;max-height:20rem;overflow:auto;font-size:13px;margin:.3rem 0}
dl{display:grid;grid-template-columns:6rem 1fr;gap:.2rem .7rem;margin:0}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}`;

export const pageScript = `
const data=JSON.parse(document.getElementById("data").textContent),task=document.getElementById("task"),verdict=document.getElementById("verdict"),query=document.getElementById("query"),list=document.getElementById("list");
for(const entry of data){const option=document.createElement("option");option.textContent=entry.task;task.append(option)}
const make=(tag,text,name)=>{const node=document.createElement(tag);if(text!==undefined)node.textContent=text;if(name)node.className=name;return node};
function show(){list.replaceChildren();const entry=data.find(({task:name})=>name===task.value);if(!entry)return;
for(const sample of entry.samples){if(verdict.value==="right"&&!sample.isCorrect||verdict.value==="wrong"&&sample.isCorrect!==false)continue;
if(query.value&&!JSON.stringify(sample).toLowerCase().includes(query.value.toLowerCase()))continue;
const details=make("details"),summary=make("summary");
summary.append(make("em","#"+sample.index),make("span",sample.isCorrect===undefined?"·":sample.isCorrect?"right":"wrong",sample.isCorrect?"ok":"no"),make("span",sample.prompt.slice(-160)));
const body=make("div"),facts=make("dl");
body.append(make("pre",sample.prompt));facts.append(make("dt","right"),make("dd",sample.target),make("dt","model"),make("dd",sample.prediction));
for(const choice of sample.choices)facts.append(make("dt",choice.logprob===undefined?"said":choice.logprob.toFixed(3)+(choice.isGreedy?" ★":"")),make("dd",choice.text));
body.append(facts);details.append(summary,body);list.append(details)}
if(!list.children.length)list.append(make("p","Nothing like that among these samples.","hint"))}
for(const node of [task,verdict])node.onchange=show;query.oninput=show;show();`;
