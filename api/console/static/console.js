// The console's own script: times in the reader's zone, uploads with progress, labels from data sets. Nothing that is read needs it.
(function () {
  "use strict";
  var moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  var day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

  function localTimes(root) {
    root.querySelectorAll("time[datetime]").forEach(function (time) {
      var at = new Date(time.dateTime);
      if (!isNaN(at)) time.textContent = (time.hasAttribute("data-day") ? day : moment).format(at);
    });
  }

  function localAll() { localTimes(document); }
  document.addEventListener("DOMContentLoaded", localAll);
  document.addEventListener("htmx:afterSettle", localAll);
  document.addEventListener("htmx:beforeSwap", function (event) {
    // A page that went away, or a session that is over, must not take the place of a part of this one.
    if (event.detail.xhr.status >= 400) event.detail.shouldSwap = false;
  });
  document.addEventListener("htmx:responseError", function (event) {
    if (event.detail.xhr.status === 404 || event.detail.xhr.status === 403) location.reload();
  });

  // Uploads: the form works without this; with it one sees how far it is, and stays on the page.
  function option(select, found) {
    var added = document.createElement("option");
    added.value = found.id;
    added.textContent = found.name + " (" + found.images + " images)";
    select.appendChild(added);
  }

  function offer(found) {
    document.querySelectorAll("select[data-sets]").forEach(function (select) { option(select, found); });
    var list = document.getElementById("evaluation");
    if (!list) return;
    var label = document.createElement("label"), box = document.createElement("input");
    var text = document.createElement("span"), sub = document.createElement("span");
    label.className = "choice";
    box.type = "checkbox";
    box.name = "evaluation";
    box.value = found.id;
    box.checked = true;
    sub.className = "sub";
    sub.textContent = found.images + " images: " + Object.keys(found.classes).slice(0, 8).map(function (name) {
      return name + " " + found.classes[name];
    }).join(", ");
    text.append(found.name, sub);
    label.append(box, " ", text);
    list.appendChild(label);
    var none = document.getElementById("no-sets");
    if (none) none.remove();
    var classes = document.getElementById("classes");
    Object.keys(found.classes).slice(0, 500).forEach(function (name) {
      var one = document.createElement("option");
      one.value = name;
      classes.appendChild(one);
    });
    box.dispatchEvent(new Event("change", { bubbles: true }));
  }

  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (!form.hasAttribute("data-upload")) return;
    event.preventDefault();
    var bar = form.querySelector("progress"), says = form.querySelector("[data-says]");
    var button = form.querySelector("button"), request = new XMLHttpRequest();
    var after = form.closest("[data-then]");
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = function (progress) {
      if (!progress.lengthComputable) return;
      bar.value = 100 * progress.loaded / progress.total;
      says.textContent = progress.loaded < progress.total ? Math.floor(bar.value) + " % sent" : "Sent; it is being checked.";
    };
    request.onloadend = function () {
      button.disabled = false;
      bar.hidden = true;
      var answer = {};
      try { answer = JSON.parse(request.responseText); } catch (error) { /* said below */ }
      if (request.status === 201) {
        says.textContent = "“" + answer.name + "” was checked and stored.";
        if (after) location.assign(after.getAttribute("data-then"));
        else { offer(answer); form.reset(); }
      } else if (request.status === 401) {
        location.reload();
      } else {
        says.textContent = answer.detail || "The upload broke off. Send it again.";
      }
    };
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    request.send(new FormData(form));
  });
})();
